package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"weft/internal/connectivity"
	"weft/internal/explain"
	"weft/internal/status"
)

func newConnectivityCommand(socket *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "connectivity",
		Short: "Test this node's pod network from within",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() }, // or a wrong word would be none
	}
	c.AddCommand(newConnectivityTestCommand(socket))
	return c
}

// connectivityReport is what the test has shown, for programs.
type connectivityReport struct {
	Results []connectivity.Result `json:"results"`
	Passed  int                   `json:"passed"`
	Failed  int                   `json:"failed"`
	Skipped int                   `json:"skipped"`
}

func newConnectivityTestCommand(socket *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "test [PEER...]",
		Short: "Have two stand-ins for pods reach each other, this node, and the peers",
		Long: "Have the CNI plugins wire two network namespaces like pods, and test whether these reach each\n" +
			"other, this node, and all peers or the named ones: by ping, by packets of full size, TCP and UDP,\n" +
			"in each family, and without their addresses being translated. The peers' weftd answers at\n" +
			"echo.port; nothing is made on other nodes. Everything is removed at the end. The exit status is 1\n" +
			"if a check failed.",
	}
	exits(c, "all checks passed", "a check failed")
	outside := c.Flags().String("outside", "", "also connect to this `ADDRESS:PORT` outside the cluster (TCP)")
	within := c.Flags().Duration("timeout", 5*time.Second, "how long each check may take")
	output := addOutput(c)
	c.RunE = func(c *cobra.Command, names []string) error {
		if *within <= 0 {
			return fmt.Errorf("--timeout %v: must be more than 0", *within)
		}
		var outsideAt netip.AddrPort
		if *outside != "" {
			var err error
			if outsideAt, err = netip.ParseAddrPort(*outside); err != nil {
				return fmt.Errorf("--outside %s: not an address and a port such as 198.51.100.1:443", strconv.Quote(*outside))
			}
		}
		node, err := status.Fetch(c.Context(), *socket)
		if err != nil {
			return failed(err)
		}
		peers, err := node.Select(names)
		if err != nil {
			return failed(err)
		}
		cache, err := os.MkdirTemp("", "weft-check-")
		if err != nil {
			return failed(fmt.Errorf("make a folder for the CNI library: %w", err))
		}
		defer os.RemoveAll(cache)
		text := *output == "text"
		report := connectivityReport{Results: []connectivity.Result{}}
		test := connectivity.Test{
			Node: node, Peers: peers, CacheDir: cache, Outside: outsideAt, Within: *within,
			Explain: func(ctx context.Context, w connectivity.Way, err error) string {
				return likelyCause(ctx, *socket, w, err)
			},
			Report: func(r connectivity.Result) {
				report.add(r)
				if text {
					printResult(c.OutOrStdout(), r)
				}
			},
		}
		err = test.Run(c.Context())
		shown := show(c.OutOrStdout(), *output, report, func(out io.Writer) error {
			_, err := fmt.Fprintf(out, "\n%d passed, %d failed, %d skipped\n", report.Passed, report.Failed, report.Skipped)
			return err
		})
		if err == nil && report.Failed > 0 {
			err = fmt.Errorf("%d %s failed", report.Failed, plural(report.Failed, "check"))
		}
		return failed(errors.Join(err, shown))
	}
	return c
}

func (r *connectivityReport) add(result connectivity.Result) {
	r.Results = append(r.Results, result)
	switch result.Outcome {
	case connectivity.Passed:
		r.Passed++
	case connectivity.Failed:
		r.Failed++
	case connectivity.Skipped:
		r.Skipped++
	}
}

func printResult(out io.Writer, r connectivity.Result) {
	label := map[connectivity.Outcome]string{connectivity.Passed: "pass", connectivity.Failed: "FAIL", connectivity.Skipped: "skip"}[r.Outcome]
	line := label + "  " + oneLine(r.Check)
	if r.Detail != "" {
		line += ": " + oneLine(r.Detail)
	}
	fmt.Fprintln(out, line)
	if r.Cause != "" {
		fmt.Fprintln(out, "      cause: "+oneLine(r.Cause))
	}
}

// likelyCause returns why packets on a way, and back, may be lost, as err shows: what explains them,
// or else what weftd warns of, and whether the path to the peer works, if it is one.
func likelyCause(ctx context.Context, socket string, w connectivity.Way, err error) string {
	queries := []explain.Query{{Source: w.From, Destination: w.To.Addr()}}
	if !w.Outside { // from there, answers come to the node's address
		queries = append(queries, explain.Query{Source: w.To.Addr(), Destination: w.From})
	}
	for _, q := range queries {
		q.Protocol, q.Port = "tcp", w.To.Port()
		if e, err := status.AskExplain(ctx, socket, q); err == nil && !e.Overall.Delivered {
			return fmt.Sprintf("a packet from %s to %s, %s", q.Source, q.Destination, withRemedy(e.Overall.Text, e.Overall.Remedy))
		}
	}
	if w.Outside && errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Sprintf("the connection is refused there: nothing listens at %s, or a packet filter on the way rejects it", w.To)
	}
	node, err := status.Fetch(ctx, socket)
	if err != nil {
		return err.Error()
	}
	var causes []string
	for _, warned := range node.Warnings {
		if status.KeepsPackets(warned.Code) {
			causes = append(causes, warned.Text)
		}
	}
	if w.Peer != "" {
		causes = append(causes, pathCause(ctx, socket, w.Peer))
	}
	if len(causes) == 0 && w.Outside {
		return fmt.Sprintf("the packets leave this node; check that %s answers other hosts, and the packet filters on the way", w.To)
	}
	if len(causes) == 0 {
		return "weftd knows of none; `weft doctor` checks this host"
	}
	return strings.Join(causes, "; and ")
}

// pathCause says whether the data path to a peer works.
func pathCause(ctx context.Context, socket, peer string) string {
	switch probe, err := status.AskProbe(ctx, socket, peer, 2); {
	case err != nil:
		return err.Error()
	case probe.Error != "":
		return fmt.Sprintf("the data path to %s: %s", peer, probe.Error)
	case probe.MTU < probe.Largest:
		return fmt.Sprintf("the path to %s carries packets of %d bytes, not the %d that pods may send", peer, probe.MTU, probe.Largest)
	}
	return fmt.Sprintf("the data path to %s works up to its weftd, so the kernel there or here drops the packets; run `weft doctor` on both nodes", peer)
}
