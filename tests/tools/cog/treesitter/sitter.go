// Package sitter stands in for go-tree-sitter, which needs a C compiler: Cog reads predictors with it, and the commands
// that we compare with (cog weights) read none.
package sitter

import "context"

type Point struct{ Row, Column uint32 }

type Node struct{}

func (n Node) Child(i int) *Node                  { return nil }
func (n Node) ChildByFieldName(name string) *Node { return nil }
func (n Node) ChildCount() uint32                 { return 0 }
func (n Node) Content(source []byte) string       { return "" }
func (n Node) EndByte() uint32                    { return 0 }
func (n Node) EndPoint() Point                    { return Point{} }
func (n Node) Equal(other *Node) bool             { return false }
func (n Node) HasError() bool                     { return false }
func (n Node) IsError() bool                      { return false }
func (n Node) IsMissing() bool                    { return false }
func (n Node) IsNamed() bool                      { return false }
func (n Node) IsNull() bool                       { return true }
func (n Node) NamedChild(i int) *Node             { return nil }
func (n Node) NamedChildCount() uint32            { return 0 }
func (n Node) NextSibling() *Node                 { return nil }
func (n Node) Parent() *Node                      { return nil }
func (n Node) PrevSibling() *Node                 { return nil }
func (n Node) StartByte() uint32                  { return 0 }
func (n Node) StartPoint() Point                  { return Point{} }
func (n Node) String() string                     { return "" }
func (n Node) Type() string                       { return "" }

type Tree struct{}

func (t *Tree) Close()          {}
func (t *Tree) RootNode() *Node { return &Node{} }

type Language struct{}

type Parser struct{}

func NewParser() *Parser                { return &Parser{} }
func (p *Parser) Close()                {}
func (p *Parser) SetLanguage(*Language) {}
func (p *Parser) ParseCtx(ctx context.Context, old *Tree, source []byte) (*Tree, error) {
	return &Tree{}, nil
}
