package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"weft/internal/events"
	"weft/internal/status"
)

// followInterval is how often --follow asks for new events.
const followInterval = time.Second

func newEventsCommand(socket *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "events",
		Short: "Show what has changed on this node",
		Long: "Show what has changed on this node, the newest last: peers that came, went or did not answer, lists of\n" +
			"nodes, keys, repairs, warnings, and drops that began and ended. What is repeated within ten minutes is\n" +
			"one event with a count. weftd keeps the events in memory, since its start.",
		Args: cobra.NoArgs,
	}
	since := c.Flags().Duration("since", 24*time.Hour, "how far to look back")
	follow := c.Flags().BoolP("follow", "f", false, "go on, and print new events as they come")
	output := addOutput(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *since < 0 {
			return fmt.Errorf("--since %v is negative; write how far to look back, as --since 1h", *since)
		}
		page, err := status.FetchEvents(c.Context(), *socket, time.Now().Add(-*since), 0)
		if err != nil {
			return failed(err)
		}
		if *follow {
			return failed(followEvents(c.Context(), c.OutOrStdout(), *output, *socket, page))
		}
		return failed(show(c.OutOrStdout(), *output, page, func(out io.Writer) error { return printEvents(out, page.Events) }))
	}
	return c
}

// followEvents prints events as they come until ctx is done: in JSON each on a line of its own. A
// repeated event comes again, with its new count. A weftd that is restarted is followed too.
func followEvents(ctx context.Context, out io.Writer, format, socket string, page events.Page) error {
	began, after := page.Began, uint64(0)
	for {
		if len(page.Events) > 0 {
			after = page.Events[len(page.Events)-1].Sequence
			if err := printNew(out, format, page.Events); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followInterval):
		}
		next, err := status.FetchEvents(ctx, socket, time.Time{}, after)
		if err != nil { // weftd is being restarted
			page.Events = nil
			continue
		}
		if page = next; !page.Began.Equal(began) {
			began, after = page.Began, 0
			if page, err = status.FetchEvents(ctx, socket, time.Time{}, after); err != nil {
				page.Events = nil
			}
		}
	}
}

func printNew(out io.Writer, format string, all []events.Event) error {
	for _, e := range all {
		if format == "text" {
			if _, err := fmt.Fprintf(out, "%s  %s\n", e.Time.Local().Format(time.DateTime), strings.Join(eventColumns(e), "  ")); err != nil {
				return err
			}
		} else if err := writeJSON(out, e, ""); err != nil {
			return err
		}
	}
	return nil
}

// printEvents writes a line for each event.
func printEvents(out io.Writer, all []events.Event) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "TIME\tEVENT\tSUBJECT\tDETAILS\n")
	for _, e := range all {
		fmt.Fprintf(w, "%s\t%s\n", e.Time.Local().Format(time.DateTime), strings.Join(eventColumns(e), "\t"))
	}
	return w.Flush()
}

// eventColumns are the kind of an event, its subject and what it says, each on one line.
func eventColumns(e events.Event) []string {
	kind, text := strings.ReplaceAll(e.Code, "_", " "), withRemedy(e.Text, e.Remedy)
	if e.Count > 1 {
		text = strings.TrimSpace(fmt.Sprintf("(%d times since %s) %s", e.Count, e.First.Local().Format(time.DateTime), text))
	}
	subject := e.Subject
	if subject == "" {
		subject = "-"
	}
	return []string{oneLine(kind), oneLine(subject), oneLine(text)}
}
