package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

// stream is a fsutil.Stream over stdin and stdout: each packet after its length in four bytes, big endian.
type stream struct {
	ctx context.Context
	in  *bufio.Reader
	mu  sync.Mutex
	out *bufio.Writer
}

func newStream(ctx context.Context) *stream {
	return &stream{ctx: ctx, in: bufio.NewReaderSize(os.Stdin, 1<<20), out: bufio.NewWriterSize(os.Stdout, 1<<16)}
}

func (s *stream) Context() context.Context { return s.ctx }

func (s *stream) RecvMsg(m any) error {
	packet, ok := m.(*types.Packet)
	if !ok {
		return fmt.Errorf("cannot receive into %T", m)
	}
	var head [4]byte
	if _, err := io.ReadFull(s.in, head[:]); err != nil {
		return err
	}
	body := make([]byte, binary.BigEndian.Uint32(head[:]))
	if _, err := io.ReadFull(s.in, body); err != nil {
		return err
	}
	return packet.Unmarshal(body)
}

func (s *stream) SendMsg(m any) error {
	packet, ok := m.(*types.Packet)
	if !ok {
		return fmt.Errorf("cannot send %T", m)
	}
	body, err := packet.Marshal()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var head [4]byte
	binary.BigEndian.PutUint32(head[:], uint32(len(body)))
	if _, err := s.out.Write(head[:]); err != nil {
		return err
	}
	if _, err := s.out.Write(body); err != nil {
		return err
	}
	return s.out.Flush()
}

// send is the reference sender for tests of a receiver.
func send(ctx context.Context, root string, filter filterFlags) error {
	tree, err := open(root, filter.include, filter.exclude, filter.follow, false)
	if err != nil {
		return err
	}
	return fsutil.Send(ctx, newStream(ctx), tree, nil)
}

// receive is the reference receiver for tests of a sender; it makes the directory equal to what is sent.
func receive(ctx context.Context, root string, merge bool) error {
	return fsutil.Receive(ctx, newStream(ctx), root, fsutil.ReceiveOpt{Merge: merge})
}
