package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"

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
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(document)
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
