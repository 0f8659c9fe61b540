package report

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// line is a line of a table, put together column by column.
type line struct{ text strings.Builder }

// newLine begins with a title that is flush left in its column.
func newLine(title string, width int) *line {
	l := new(line)
	l.text.WriteString(title)
	l.text.WriteString(space(title, width))
	return l
}

// add adds a column that is flush right.
func (l *line) add(text string, width int) {
	l.text.WriteString(space(text, width))
	l.text.WriteString(text)
}

func (l *line) print(w io.Writer) { fmt.Fprintln(w, strings.TrimRight(l.text.String(), " ")) }

// space is what text lacks of a width in characters.
func space(text string, width int) string {
	return strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}
