// Package python stands in for the grammar of Python.
package python

import sitter "github.com/smacker/go-tree-sitter"

func GetLanguage() *sitter.Language { return &sitter.Language{} }
