package stage

import (
	"fmt"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Screen prints lines that read well on a terminal and in the log of a CI run.
type Screen struct {
	out    *os.File
	colour bool
}

// Colour is one of those that a Screen paints in.
type Colour string

const (
	Red   Colour = "31"
	Green Colour = "32"
	Bold  Colour = "1"
	Faint Colour = "2"
)

// textWidth is how wide headings and progress lines are.
const textWidth = 88

func newScreen(out *os.File) *Screen {
	_, err := unix.IoctlGetTermios(int(out.Fd()), unix.TCGETS)
	// https://no-color.org
	return &Screen{out: out, colour: err == nil && os.Getenv("NO_COLOR") == ""}
}

// Paint returns the text in a colour, or as it is if the screen has none.
func (s *Screen) Paint(c Colour, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

func (s *Screen) heading(number int, title string) {
	fmt.Fprintf(s.out, "\n%s\n\n", s.Paint(Bold, fmt.Sprintf("%d  %s", number, title)))
}

// Line prints a line, indented as all that is below a heading.
func (s *Screen) Line(format string, args ...any) {
	fmt.Fprintf(s.out, "   "+format+"\n", args...)
}

// Gap prints an empty line.
func (s *Screen) Gap() { fmt.Fprintln(s.out) }

// Note prints a line that explains another.
func (s *Screen) Note(format string, args ...any) {
	s.Line("%s", s.Paint(Faint, fmt.Sprintf(format, args...)))
}

// OK prints something that was checked.
func (s *Screen) OK(format string, args ...any) {
	s.Line("%s %s", s.Paint(Green, "✓"), fmt.Sprintf(format, args...))
}

// Warn prints something that was checked, and is not as one might wish.
func (s *Screen) Warn(format string, args ...any) {
	s.Line("%s %s", s.Paint(Red, "!"), fmt.Sprintf(format, args...))
}

// Done prints something that was done, with its duration at the right.
func (s *Screen) Done(took time.Duration, format string, args ...any) {
	text := PadRight(fmt.Sprintf(format, args...), textWidth-14)
	s.OK("%s %s", text, s.Paint(Faint, fmt.Sprintf("%7.2f s", took.Seconds())))
}

// Timed runs f and prints what was done and how long it took.
func (s *Screen) Timed(what string, f func() error) error {
	started := time.Now()
	if err := f(); err != nil {
		return err
	}
	s.Done(time.Since(started), "%s", what)
	return nil
}

func (s *Screen) failed(format string, args ...any) {
	fmt.Fprintf(s.out, "\n%s %s\n", s.Paint(Red, "✗ FAILED:"), fmt.Sprintf(format, args...))
}

// Block prints text of several lines as it is, indented.
func (s *Screen) Block(text string) {
	for line := range strings.Lines(strings.Trim(text, "\n") + "\n") {
		if strings.TrimSpace(line) != "" {
			line = "   " + line
		}
		fmt.Fprint(s.out, line)
	}
}

// PadRight fills text up with spaces at its right, to a width in characters.
func PadRight(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}

// padLeft fills text up with spaces at its left, to a width in characters.
func padLeft(text string, width int) string {
	return strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text))) + text
}
