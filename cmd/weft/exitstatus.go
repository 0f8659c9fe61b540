package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// Exit statuses of every command, beside 0.
const (
	exitFailure = 1
	exitUsage   = 2
)

// exitStatusTopic is the name of the help topic: weft help exit-status.
const exitStatusTopic = "exit-status"

// exitMeanings are what the exit statuses mean for all commands.
var exitMeanings = []string{
	0:           "the command did what it is for",
	exitFailure: "it failed, or it found a fault; the error says why, and what to do",
	exitUsage:   "it was called wrongly, or weftd's configuration has a mistake; nothing was done",
}

// annotations of commands, by exit status.
const annotationOfExit = "weft exit status "

// exits documents what the exit statuses 0 and 1 of a command mean, where that is more than
// exitMeanings says.
func exits(c *cobra.Command, success, failure string) {
	c.Annotations = map[string]string{annotationOfExit + "0": success, annotationOfExit + "1": failure}
}

// documented calls each for every command that exits documents, in the order of the help.
func documented(c *cobra.Command, each func(command, success, failure string)) {
	if success := c.Annotations[annotationOfExit+"0"]; success != "" {
		each(c.CommandPath(), success, c.Annotations[annotationOfExit+"1"])
	}
	for _, sub := range c.Commands() {
		documented(sub, each)
	}
}

// newExitStatusTopic documents the exit statuses of all commands that root has by now.
func newExitStatusTopic(root *cobra.Command) *cobra.Command {
	var text strings.Builder
	text.WriteString("The exit status of each command is\n\n")
	for status, meaning := range exitMeanings {
		fmt.Fprintf(&text, "    %d  %s\n", status, meaning)
	}
	text.WriteString("\nOf these commands it means\n\n")
	widest := 0
	documented(root, func(command, _, _ string) { widest = max(widest, len(command)) })
	documented(root, func(command, success, failure string) {
		fmt.Fprintf(&text, "    %-*s  0  %s\n    %-*s  1  %s\n", widest, command, success, widest, "", failure)
	})
	return &cobra.Command{
		Use:   exitStatusTopic,
		Short: "What the exit statuses of the commands mean",
		Long:  strings.TrimSuffix(text.String(), "\n"),

		DisableFlagsInUseLine: true,
	}
}

// exitStatusTable is the same for docs/operations/reference.md.
func exitStatusTable(root *cobra.Command) string {
	var text strings.Builder
	text.WriteString("\n| exit status | meaning |\n|---|---|\n")
	for status, meaning := range exitMeanings {
		fmt.Fprintf(&text, "| %d | %s |\n", status, meaning)
	}
	text.WriteString("\n| command | 0 | 1 |\n|---|---|---|\n")
	documented(root, func(command, success, failure string) {
		fmt.Fprintf(&text, "| `%s` | %s | %s |\n", command, success, failure)
	})
	text.WriteString("\n")
	return text.String()
}
