package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"weft/internal/config"
	"weft/internal/setup"
	"weft/internal/strict"
)

// maxInvitation is how long a token is valid at most.
const maxInvitation = 24 * time.Hour

// invitation is a token, for programs.
type invitation struct {
	Token       string         `json:"token"`
	At          netip.AddrPort `json:"at"`
	Fingerprint string         `json:"fingerprint"`
	Until       time.Time      `json:"until"`
}

func newInviteCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "invite",
		Short: "Make a token by which one new node joins, and wait for it",
		Long: "Make a token by which one new node joins, print the command to run there, and wait for that node on a\n" +
			"TCP port with the number of weft's UDP port. The new node gets the cluster CIDRs and the list of\n" +
			"nodes; this node's list gets the new node. Both ends authenticate by their keys, and show the\n" +
			"fingerprints. The token is a secret: whoever has it first is the new node. It ends when it is used,\n" +
			"or with this command. Other nodes of the cluster need the command that is printed at the end.",
		Args: cobra.NoArgs,
	}
	exits(c, "a node has joined", "no node has joined")
	addConfigFlags(c, "config")
	valid := c.Flags().Duration("for", 15*time.Minute, "how long to wait, at most 24h")
	at := c.Flags().String("at", "", "`address and port` at which the new node reaches this command (default: this node's endpoint)")
	output := addOutput(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *valid <= 0 || *valid > maxInvitation {
			return fmt.Errorf("--for: %s is not a time up to 24h; write one with its unit, such as 15m", *valid)
		}
		var where netip.AddrPort
		if *at != "" {
			var err error
			if where, err = strict.ParseAddrPort(*at); err != nil {
				return fmt.Errorf("--at: %w", err)
			}
		}
		settings, err := config.Load(c.Flags(), os.Environ())
		if err != nil {
			return err
		}
		return failed(waitForGuest(c, settings, where, *valid, *output))
	}
	return c
}

func waitForGuest(c *cobra.Command, settings config.Config, at netip.AddrPort, valid time.Duration, format string) error {
	ctx, cancel := context.WithTimeout(c.Context(), valid)
	defer cancel()
	host, guest, err := setup.NewHost(ctx, settings, at)
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", netip.AddrPortFrom(settings.Listen.Addr(), host.Token.At.Port()).String())
	if err != nil {
		return fmt.Errorf("wait for the new node: %w; another `weft invite` may be waiting there: end it, or give another port with --at", err)
	}
	made := invitation{host.Token.String(), host.Token.At, host.Token.Host.String(), time.Now().Add(valid).Round(time.Second)}
	out := c.OutOrStdout()
	if err := showLine(out, format, made, func() error { return printInvitation(out, made, valid) }); err != nil {
		return errors.Join(err, listener.Close())
	}
	switch _, err = host.Serve(ctx, listener); {
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("no node has joined within %s; run `weft invite` again", valid)
	case errors.Is(err, context.Canceled):
		err = errors.New("no node has joined, and the token has expired; run `weft invite` again")
	}
	if n := host.Unproven(); n > 0 {
		fmt.Fprintf(c.ErrOrStderr(), "weft: %d %s showed no valid token\n", n, plural(n, "connection"))
	}
	if err != nil {
		return err
	}
	return showLine(out, format, guest, func() error {
		fmt.Fprintln(out)
		printNode(out, guest)
		if len(guest.Others) > 0 {
			fmt.Fprintf(out, "\nRun on %s:  weft node add '%s'\n", strings.Join(guest.Others, ", "), guest.Entry)
		}
		return nil
	})
}

func printInvitation(out io.Writer, i invitation, valid time.Duration) error {
	_, err := fmt.Fprintf(out, "Run this on the new node, within %s. The token in it is a secret.\n\n    weft join %s\n\nfingerprint    %s\nwaiting        at %s, TCP\n",
		valid, i.Token, i.Fingerprint, i.At)
	return err
}

// showLine writes one document of several on a line, or calls text for people.
func showLine(out io.Writer, format string, document any, text func() error) error {
	if format == "text" {
		return text()
	}
	return writeJSON(out, document, "")
}
