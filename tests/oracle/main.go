// Oracle answers what the real Go packages do, so that tests can compare ours with them.
//
// Without arguments it is a server: one JSON request per line on stdin, one JSON answer per line on stdout.  The other
// commands speak the file-sync protocol itself on stdin and stdout.  See README.md.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "oracle:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return serve()
	}
	flags := flag.NewFlagSet(args[0], flag.ExitOnError)
	var filter filterFlags
	filter.register(flags)
	merge := flags.Bool("merge", false, "receive: keep what is there, as the local exporter does")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errors.New("one directory is needed")
	}
	switch args[0] {
	case "serve-send":
		return send(context.Background(), flags.Arg(0), filter)
	case "receive":
		return receive(context.Background(), flags.Arg(0), *merge)
	}
	return fmt.Errorf("unknown command %q", args[0])
}

// request is one question.  Strings that may hold any bytes are []byte, which JSON carries as base64.
type request struct {
	Op       string   `json:"op"`
	Patterns [][]byte `json:"patterns"`
	Paths    [][]byte `json:"paths"`

	Root    []byte   `json:"root"`
	Include [][]byte `json:"include"`
	Exclude [][]byte `json:"exclude"`
	Follow  [][]byte `json:"follow"`
	// Layered walks as buildctl does: a filter that resets the owner below the filter of the daemon.
	Layered bool `json:"layered"`

	Content []byte `json:"content"`
}

func serve() error {
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	encoder := json.NewEncoder(out)
	decoder := json.NewDecoder(in)
	for decoder.More() {
		var req request
		if err := decoder.Decode(&req); err != nil {
			return err
		}
		if err := encoder.Encode(answer(&req)); err != nil {
			return err
		}
		if err := out.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func answer(req *request) any {
	switch req.Op {
	case "match":
		return matchAll(req.Patterns, req.Paths)
	case "ignore":
		return readIgnore(req.Content)
	case "paths":
		return goPaths(req.Patterns, req.Paths)
	case "walk":
		return walk(req)
	case "follow":
		return follow(req)
	}
	return failure{Error: fmt.Sprintf("unknown op %q", req.Op)}
}

type failure struct {
	Error string `json:"error"`
}

func texts(in [][]byte) []string {
	if in == nil {
		return nil
	}
	out := make([]string, len(in))
	for i, b := range in {
		out[i] = string(b)
	}
	return out
}

func raw(in []string) [][]byte {
	if in == nil {
		return nil
	}
	out := make([][]byte, len(in))
	for i, s := range in {
		out[i] = []byte(s)
	}
	return out
}
