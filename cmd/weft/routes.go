package main

import (
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"weft/internal/hostnet"
	"weft/internal/status"
)

func newRoutesCommand(socket *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "routes [ADDRESS|PREFIX]",
		Short: "Show weftd's forwarding table beside the kernel's routes",
		Long: "Show which node weftd's forwarding table has for each prefix, and the route that the kernel has for it;\n" +
			"with an argument only what overlaps it. Disagreements come first, each with its remedy. The table\n" +
			"decides to which node a packet goes; the kernel's routes decide whether weftd gets it. Where KERNEL is\n" +
			"unreachable, the kernel refuses addresses that no node or pod has; each pod has a route of its own.",
		Args: cobra.MaximumNArgs(1),
	}
	output := addOutput(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		var overlapping netip.Prefix
		if len(args) == 1 {
			var err error
			if overlapping, err = parsePrefix(args[0]); err != nil {
				return err
			}
		}
		entries, err := status.FetchRoutes(c.Context(), *socket, overlapping)
		if err != nil {
			return failed(err)
		}
		return failed(show(c.OutOrStdout(), *output, entries, func(out io.Writer) error { return printRoutes(out, entries) }))
	}
	return c
}

// parsePrefix reads a prefix, or an address.
func parsePrefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return prefix, fmt.Errorf("%q is neither an address nor a prefix; write one like 10.244.2.7 or 10.244.2.0/24", text)
	}
	return prefix.Masked(), nil
}

// printRoutes writes what is wrong, and then a line for each entry.
func printRoutes(out io.Writer, entries []status.RouteEntry) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	problems := 0
	for _, e := range entries {
		if e.Problem != "" {
			problems++
			fmt.Fprintf(out, "PROBLEM  %s (%s): %s\n", e.Prefix, owner(e), oneLine(e.Problem))
		}
	}
	if problems > 0 {
		fmt.Fprintln(out)
	}
	fmt.Fprintf(w, "PREFIX\tNODE\tKERNEL\tDEVICE\tMTU\tSOURCE\tTABLE\n")
	for _, e := range entries {
		if len(e.Kernel) == 0 {
			fmt.Fprintf(w, "%s\t%s\t-\t-\t-\t-\t-\n", e.Prefix, owner(e))
			continue
		}
		k := e.Kernel[0]
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", e.Prefix, owner(e), kind(k), orDash(deviceOf(k)), orDash(mtuOf(k)), orDash(sourceOf(k)), tableOf(k))
	}
	return w.Flush()
}

func owner(e status.RouteEntry) string {
	switch {
	case e.Self:
		return e.Node + " (this node)"
	case e.Node == "":
		return "no node"
	}
	return e.Node
}

// kind is a route's type, and whose it is unless it is weft's.
func kind(k hostnet.KernelRoute) string {
	if k.Own() {
		return k.Type
	}
	return k.Type + ", not weft's"
}

// deviceOf is the device by which packets leave. Linux names the loopback device in routes of IPv6 that
// refuse packets.
func deviceOf(k hostnet.KernelRoute) string {
	switch k.Type {
	case "unreachable", "prohibit", "blackhole":
		return ""
	}
	return k.Device
}

func mtuOf(k hostnet.KernelRoute) string {
	if k.MTU == 0 {
		return ""
	}
	return strconv.Itoa(k.MTU)
}

func sourceOf(k hostnet.KernelRoute) string {
	if !k.Source.IsValid() {
		return ""
	}
	return k.Source.String()
}

func tableOf(k hostnet.KernelRoute) string { return hostnet.TableName(k.Table) }

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
