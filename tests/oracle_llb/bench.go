package main

import (
	"context"
	"fmt"
	"time"

	"github.com/moby/buildkit/client/llb"
)

// bench marshals the graph of benchmarks/llb.py: chains of commands and files, merged.  It prints the bytes of the
// definition, and the seconds of the whole.
func bench(count int) error {
	begin := time.Now()
	base := llb.Image("docker.io/library/busybox:latest")
	var chains []llb.State
	state := base
	for i := 0; i < count; i++ {
		if i%2 == 0 {
			state = state.Run(
				llb.Args([]string{"sh", "-c", fmt.Sprintf("echo %d > /out", i)}),
				llb.AddEnv("STEP", fmt.Sprint(i)),
				llb.AddMount("/root/.cache", llb.Scratch(), llb.AsPersistentCacheDir("cache", llb.CacheMountShared)),
				llb.WithCustomName(fmt.Sprintf("step %d", i)),
			).Root()
		} else {
			state = state.File(llb.Mkfile(fmt.Sprintf("/file-%d", i), 0o644, []byte(fmt.Sprint(i))))
		}
		if i%100 == 99 {
			chains = append(chains, state)
			state = base
		}
	}
	def, err := llb.Merge(append(chains, state)).Marshal(context.Background(), llb.LinuxAmd64)
	if err != nil {
		return err
	}
	data, err := encode(def)
	if err != nil {
		return err
	}
	fmt.Println(len(data), time.Since(begin).Seconds())
	return nil
}
