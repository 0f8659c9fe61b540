// Package yamltree reads a YAML file strictly and keeps for every value where it
// was written, so that the reader of the tree can name file, line and key.
//
// It never guesses what a value is: every scalar is the text that was written, so
// on, 0777 or 1:30 mean themselves (or are refused where a number is expected).
// It refuses what would make a file mean something other than what one reads in
// it: duplicate keys, aliases, tags, a second document.
package yamltree

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"weft/internal/strict"
)

const (
	// MaxSize is the size in bytes of the largest file that is read: room for
	// 5,000 nodes thirty times over.
	MaxSize = 16 << 20

	// maxDepth is deeper than any file of weft's nests.
	maxDepth = 16
)

// ReadFile returns the content of a regular file of at most MaxSize bytes. Its
// errors name the path.
func ReadFile(path string) ([]byte, error) {
	// A named pipe would block Open until it has a writer.
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: not a regular file", path)
	case info.Size() > MaxSize:
		return nil, fmt.Errorf("%s: larger than %d MiB; is it the right file?", path, MaxSize>>20)
	}
	return os.ReadFile(path)
}

// Parse reads the one document in data, which was written in the named file. What
// it refuses goes to problems (in a List when Node.Items comes to it), and the rest of the
// tree can be checked all the same. An empty document is an empty mapping; one whose
// syntax is broken is Refused.
func Parse(file string, data []byte, problems *strict.Problems) *Node {
	root := &Node{file: file, line: 1}
	doc, ok := load(file, data, problems)
	switch {
	case !ok: // Refused
	case len(doc.Content) == 0 || isNull(doc.Content[0]):
		root.Kind = Mapping
	default:
		root.line = doc.Content[0].Line
		root.fill(doc.Content[0], problems)
	}
	return root
}

func load(file string, data []byte, problems *strict.Problems) (doc yaml.Node, ok bool) {
	if line := unreadableLine(data); line > 0 {
		problems.Addf(lineOf(file, line), "", "is not text; save it as UTF-8 without control characters")
		return doc, false
	}
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		problems.Addf(file, "", "read YAML: %w", err)
		return doc, false
	}
	var second yaml.Node
	err = loader.Load(&doc)
	if errors.Is(err, io.EOF) {
		return doc, true
	}
	if err == nil {
		if err = loader.Load(&second); err == nil {
			problems.Addf(lineOf(file, second.Line), "", "a second YAML document begins here; only one is allowed: remove it or merge it into the first")
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		addSyntax(file, err, problems)
		return doc, false
	}
	return doc, true
}

func addSyntax(file string, err error, problems *strict.Problems) {
	var load *yaml.LoadError
	if !errors.As(err, &load) || load.Mark.Line == 0 {
		problems.Addf(file, "", "not valid YAML: %w", err)
		return
	}
	began := ""
	if load.ContextMsg != "" {
		began = fmt.Sprintf(" (%s that began in line %d)", load.ContextMsg, load.ContextMark.Line)
	}
	problems.Addf(lineOf(file, load.Mark.Line), "", "not valid YAML at column %d: %s%s; correct the indentation, quotes or brackets here or just before",
		load.Mark.Column, load.Message, began)
}

// unreadableLine returns the number of the first line that holds invalid UTF-8 or
// a control character, or 0. The YAML reader refuses them too, but doesn't say where.
func unreadableLine(data []byte) int {
	line := 1
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		switch {
		case r == '\n':
			line++
		case r == utf8.RuneError && size == 1, r < ' ' && r != '\t' && r != '\r', r >= 0x7f && r < 0xa0 && r != 0x85:
			return line
		}
		i += size
	}
	return 0
}

func lineOf(file string, line int) string { return file + ":" + strconv.Itoa(line) }
