package main

import (
	"fmt"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// screen prints lines that read well on a terminal and in the log of a CI run.
type screen struct {
	out    *os.File
	colour bool
}

type colour string

const (
	red   colour = "31"
	green colour = "32"
	bold  colour = "1"
	faint colour = "2"
)

// textWidth is how wide headings and progress lines are.
const textWidth = 88

func newScreen(out *os.File) *screen {
	_, err := unix.IoctlGetTermios(int(out.Fd()), unix.TCGETS)
	// https://no-color.org
	return &screen{out: out, colour: err == nil && os.Getenv("NO_COLOR") == ""}
}

func (s *screen) paint(c colour, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

func (s *screen) heading(number int, title string) {
	fmt.Fprintf(s.out, "\n%s\n\n", s.paint(bold, fmt.Sprintf("%d  %s", number, title)))
}

func (s *screen) line(format string, args ...any) {
	fmt.Fprintf(s.out, "   "+format+"\n", args...)
}

func (s *screen) gap() { fmt.Fprintln(s.out) }

func (s *screen) note(format string, args ...any) {
	s.line("%s", s.paint(faint, fmt.Sprintf(format, args...)))
}

// ok prints something that was checked.
func (s *screen) ok(format string, args ...any) {
	s.line("%s %s", s.paint(green, "✓"), fmt.Sprintf(format, args...))
}

// warn prints something that was checked, and is not as one might wish.
func (s *screen) warn(format string, args ...any) {
	s.line("%s %s", s.paint(red, "!"), fmt.Sprintf(format, args...))
}

// done prints something that was done, with its duration at the right.
func (s *screen) done(took time.Duration, format string, args ...any) {
	text := padRight(fmt.Sprintf(format, args...), textWidth-14)
	s.ok("%s %s", text, s.paint(faint, fmt.Sprintf("%7.2f s", took.Seconds())))
}

func (s *screen) failed(format string, args ...any) {
	fmt.Fprintf(s.out, "\n%s %s\n", s.paint(red, "✗ FAILED:"), fmt.Sprintf(format, args...))
}

// block prints text of several lines as it is, indented.
func (s *screen) block(text string) {
	for line := range strings.Lines(strings.Trim(text, "\n") + "\n") {
		if strings.TrimSpace(line) != "" {
			line = "   " + line
		}
		fmt.Fprint(s.out, line)
	}
}

func padRight(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}

func padLeft(text string, width int) string {
	return strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text))) + text
}
