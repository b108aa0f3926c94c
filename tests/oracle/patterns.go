package main

import (
	"bytes"
	"path/filepath"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// matchAnswer has one letter per path for each function: t, f, or e for an error.
type matchAnswer struct {
	Error   string `json:"error,omitempty"`
	Matches string `json:"matches"`
	Parents string `json:"parents"`
	// Walked is MatchesUsingParentResults, given the results of the path's directory, and so on up to the root.
	Walked string `json:"walked"`
	// Alone is MatchesUsingParentResults without results of a directory.
	Alone string `json:"alone"`
	// Pattern errors as they were returned, by function.
	Errors map[string]string `json:"errors,omitempty"`
}

func matchAll(patterns, paths [][]byte) any {
	matcher, err := patternmatcher.New(texts(patterns))
	if err != nil {
		return failure{Error: err.Error()}
	}
	out := matchAnswer{Errors: map[string]string{}}
	note := func(name string, matched bool, err error) string {
		if err != nil {
			out.Errors[name] = err.Error()
			return "e"
		}
		if matched {
			return "t"
		}
		return "f"
	}
	for _, path := range texts(paths) {
		m, err := matcher.Matches(path)
		out.Matches += note("matches", m, err)
		m, err = matcher.MatchesOrParentMatches(path)
		out.Parents += note("parents", m, err)
		m, _, err = matcher.MatchesUsingParentResults(path, patternmatcher.MatchInfo{})
		out.Alone += note("alone", m, err)
		m, _, err = walked(matcher, path)
		out.Walked += note("walked", m, err)
	}
	return out
}

func walked(matcher *patternmatcher.PatternMatcher, path string) (bool, patternmatcher.MatchInfo, error) {
	var info patternmatcher.MatchInfo
	if dir := filepath.Dir(path); dir != "." && dir != path && dir != "/" {
		var err error
		if _, info, err = walked(matcher, dir); err != nil {
			return false, info, err
		}
	}
	return matcher.MatchesUsingParentResults(path, info)
}

func readIgnore(content []byte) any {
	patterns, err := ignorefile.ReadAll(bytes.NewReader(content))
	if err != nil {
		return failure{Error: err.Error()}
	}
	return struct {
		Patterns [][]byte `json:"patterns"`
	}{raw(patterns)}
}

// goPaths gives filepath.Clean, Dir and Base of every path and filepath.Match of every pattern and path.
func goPaths(patterns, paths [][]byte) any {
	out := struct {
		Clean [][]byte `json:"clean"`
		Dir   [][]byte `json:"dir"`
		Base  [][]byte `json:"base"`
		Match []string `json:"match"`
	}{}
	for _, path := range texts(paths) {
		out.Clean = append(out.Clean, []byte(filepath.Clean(path)))
		out.Dir = append(out.Dir, []byte(filepath.Dir(path)))
		out.Base = append(out.Base, []byte(filepath.Base(path)))
	}
	for _, pattern := range texts(patterns) {
		line := ""
		for _, path := range texts(paths) {
			matched, err := filepath.Match(pattern, path)
			switch {
			case err != nil:
				line += "e"
			case matched:
				line += "t"
			default:
				line += "f"
			}
		}
		out.Match = append(out.Match, line)
	}
	return out
}
