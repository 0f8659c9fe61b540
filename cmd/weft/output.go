package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"

	"github.com/spf13/cobra"
)

// addOutput gives a command the flag -o, and refuses what it can't be.
func addOutput(c *cobra.Command) (format *string) {
	format = c.Flags().StringP("output", "o", "text", "`format` of the output: text or json")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	c.PreRunE = func(*cobra.Command, []string) error {
		if *format != "text" && *format != "json" {
			return fmt.Errorf("unknown output format %q; there are text and json", *format)
		}
		return nil
	}
	return format
}

// show writes a document as it is for programs, or calls text for people.
func show(out io.Writer, format string, document any, text func(io.Writer) error) error {
	if format == "text" {
		return text(out)
	}
	return writeJSON(out, document, "  ")
}

// writeJSON writes a document on a line of its own, or on more with an indent. What could control a
// terminal is escaped, as in printable: peers and pods may have chosen it, and encoding/json escapes
// only what is below U+0020.
func writeJSON(out io.Writer, document any, indent string) error {
	var text strings.Builder
	encoder := json.NewEncoder(&text)
	encoder.SetIndent("", indent)
	if err := encoder.Encode(document); err != nil {
		return err
	}
	var escaped strings.Builder
	for _, r := range text.String() {
		if r == '\n' || unicode.IsPrint(r) {
			escaped.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&escaped, `\u%04x`, unit)
		}
	}
	_, err := io.WriteString(out, escaped.String())
	return err
}

// withRemedy joins a text and its remedy, if there is one.
func withRemedy(text, remedy string) string {
	if remedy == "" {
		return text
	}
	return text + "; " + remedy
}

// printable replaces characters of an error that could control a terminal: a non-peer may
// have chosen them.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

// oneLine is printable for what must not break a table or a list: the lines of a text become one.
func oneLine(text string) string { return printable(strings.Join(strings.Fields(text), " ")) }
