package main

import (
	"context"
	"flag"
	"io"
	"io/fs"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

type statAnswer struct {
	Path     []byte            `json:"path"`
	Mode     uint32            `json:"mode"`
	UID      uint32            `json:"uid"`
	GID      uint32            `json:"gid"`
	Size     int64             `json:"size"`
	ModTime  int64             `json:"mtime"`
	Linkname []byte            `json:"linkname"`
	Devmajor int64             `json:"devmajor"`
	Devminor int64             `json:"devminor"`
	Xattrs   map[string][]byte `json:"xattrs,omitempty"`
	// Content is what the sender would send if asked for the file, null if it may not be asked for.
	Content *[]byte `json:"content"`
}

type walkAnswer struct {
	Stats []statAnswer `json:"stats"`
	// Error ended the walk after Stats; Setup says that it came before the walk.
	Error string `json:"error,omitempty"`
	Setup bool   `json:"setup,omitempty"`
}

func resetOwner(_ string, stat *types.Stat) fsutil.MapResult {
	stat.Uid = 0
	stat.Gid = 0
	return fsutil.MapResultKeep
}

// open makes the tree that a sender sends.
func open(root string, include, exclude, followPaths []string, layered bool) (fsutil.FS, error) {
	tree, err := fsutil.NewFS(root)
	if err != nil {
		return nil, err
	}
	opt := &fsutil.FilterOpt{IncludePatterns: include, ExcludePatterns: exclude, FollowPaths: followPaths}
	if layered {
		if tree, err = fsutil.NewFilterFS(tree, &fsutil.FilterOpt{Map: resetOwner}); err != nil {
			return nil, err
		}
	} else {
		opt.Map = resetOwner
	}
	return fsutil.NewFilterFS(tree, opt)
}

func walk(req *request) any {
	filtered, err := open(string(req.Root), texts(req.Include), texts(req.Exclude), texts(req.Follow), req.Layered)
	if err != nil {
		return walkAnswer{Error: err.Error(), Setup: true}
	}
	tree := fsutil.WithHardlinkReset(filtered)
	out := walkAnswer{Stats: []statAnswer{}}
	err = tree.Walk(context.Background(), "/", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		stat := info.Sys().(*types.Stat)
		answer := statAnswer{
			Path: []byte(stat.Path), Mode: stat.Mode, UID: stat.Uid, GID: stat.Gid, Size: stat.Size,
			ModTime: stat.ModTime, Linkname: []byte(stat.Linkname), Devmajor: stat.Devmajor, Devminor: stat.Devminor,
			Xattrs: stat.Xattrs,
		}
		if fs.FileMode(stat.Mode)&fs.ModeType == 0 {
			content := []byte{}
			if file, err := tree.Open(stat.Path); err == nil {
				content, err = io.ReadAll(file)
				file.Close()
				if err != nil {
					return err
				}
			}
			answer.Content = &content
		}
		out.Stats = append(out.Stats, answer)
		return nil
	})
	if err != nil {
		out.Error = err.Error()
	}
	return out
}

func follow(req *request) any {
	tree, err := fsutil.NewFS(string(req.Root))
	if err != nil {
		return failure{Error: err.Error()}
	}
	paths, err := fsutil.FollowLinks(tree, texts(req.Follow))
	if err != nil {
		return failure{Error: err.Error()}
	}
	return struct {
		Paths [][]byte `json:"paths"`
	}{raw(paths)}
}

// filterFlags are the flags of the commands that send or receive.
type filterFlags struct {
	include, exclude, follow listFlag
}

func (f *filterFlags) register(flags *flag.FlagSet) {
	flags.Var(&f.include, "include", "serve-send: include pattern (may be repeated)")
	flags.Var(&f.exclude, "exclude", "serve-send: exclude pattern (may be repeated)")
	flags.Var(&f.follow, "follow", "serve-send: follow-path (may be repeated)")
}

type listFlag []string

func (l *listFlag) String() string { return "" }

func (l *listFlag) Set(value string) error {
	*l = append(*l, value)
	return nil
}
