// Oracle-llb marshals graphs with BuildKit's own client/llb, so that tests can compare ours with it.
//
// One JSON graph per line on stdin, one answer per line on stdout.  With "bench N" it makes a graph of N ops by itself
// and says how long it took.  See README.md.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/moby/buildkit/client/llb"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "oracle-llb:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 2 && args[0] == "bench" {
		count, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return bench(count)
	}
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	decoder := json.NewDecoder(in)
	decoder.DisallowUnknownFields()
	encoder := json.NewEncoder(out)
	for decoder.More() {
		var g graph
		if err := decoder.Decode(&g); err != nil {
			return err
		}
		if err := encoder.Encode(answerTo(&g)); err != nil {
			return err
		}
		if err := out.Flush(); err != nil {
			return err
		}
	}
	return nil
}

type answer struct {
	Definition []byte `json:"definition,omitempty"`
	Error      string `json:"error,omitempty"`
}

func answerTo(g *graph) (a answer) {
	defer func() {
		if r := recover(); r != nil {
			a = answer{Error: fmt.Sprint("panic: ", r)}
		}
	}()
	state, err := g.build()
	if err != nil {
		return answer{Error: err.Error()}
	}
	options, err := g.Marshal.options(g)
	if err != nil {
		return answer{Error: err.Error()}
	}
	def, err := state.Marshal(context.Background(), append(options, g.capabilities()...)...)
	if err != nil {
		return answer{Error: err.Error()}
	}
	data, err := encode(def)
	if err != nil {
		return answer{Error: err.Error()}
	}
	return answer{Definition: data}
}

// encode writes maps in the order of their keys; Definition.Marshal does not.
func encode(def *llb.Definition) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(def.ToPB())
}
