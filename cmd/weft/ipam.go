package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"weft/cniplugin"
	"weft/ipam"
)

func newIPAMCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "ipam",
		Short: "Look after the addresses of this node's pods",
		Long: "Look after the addresses of this node's pods. These commands read the lease files themselves,\n" +
			"and so work while weftd is down.",
		Args: cobra.NoArgs,
	}
	stateDir := c.PersistentFlags().String("state-dir", "/var/lib/weft", "weftd's stateDir")
	c.AddCommand(newIPAMListCommand(stateDir), newIPAMCheckCommand(stateDir), newIPAMReleaseCommand(stateDir), newIPAMGCCommand(stateDir))
	return c
}

// listing is what `weft ipam list` shows.
type listing struct {
	Leases  []attachment `json:"leases"`
	Resting []resting    `json:"resting"`
}

type attachment struct {
	cniplugin.Found
	Trouble string `json:"trouble,omitempty"`
}

type resting struct {
	Network   string       `json:"network"`
	Addresses []netip.Addr `json:"addresses"`
}

func newIPAMListCommand(stateDir *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "list",
		Short: "List who holds which address",
		Args:  cobra.NoArgs,
	}
	output := addOutput(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		list, err := readListing(*stateDir)
		if err == nil {
			err = show(c.OutOrStdout(), *output, list, func(out io.Writer) error { return printListing(out, list, time.Now()) })
		}
		return failed(err)
	}
	return c
}

// failed marks an error as one of the thing itself.
func failed(err error) error {
	if err == nil {
		return nil
	}
	return failure{err}
}

func readListing(stateDir string) (listing, error) {
	stores, err := ipam.OpenAll(stateDir)
	if err != nil {
		return listing{}, err
	}
	list := listing{Leases: []attachment{}, Resting: []resting{}}
	for _, s := range stores {
		_, addresses, err := s.List()
		if err != nil {
			return listing{}, err
		}
		if len(addresses) > 0 {
			list.Resting = append(list.Resting, resting{s.Network(), addresses})
		}
	}
	found, err := cniplugin.Survey(stores)
	for _, f := range found {
		list.Leases = append(list.Leases, attachment{f, f.Trouble()})
	}
	return list, err
}

func printListing(out io.Writer, list listing, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "ADDRESSES\tPOD\tCONTAINER\tINTERFACE\tVETH\tNETWORK\tAGE\tTROUBLE\n")
	for _, a := range list.Leases {
		age := "-"
		if !a.Since.IsZero() {
			age = now.Sub(a.Since).Round(time.Second).String()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", join(a.Addresses), orDash(a.Pod), orDash(shortID(a.ContainerID)), orDash(a.IfName),
			orDash(a.Veth), orDash(a.Network), age, orDash(a.Trouble))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, r := range list.Resting {
		if _, err := fmt.Fprintf(out, "\nresting in %s, or about to be free: %s\n", r.Network, join(r.Addresses)); err != nil {
			return err
		}
	}
	return nil
}

// shortID is as much of a container's ID as runtimes' own commands show.
func shortID(id string) string { return printable(id[:min(len(id), 13)]) }

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return printable(text)
}

func newIPAMCheckCommand(stateDir *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "Compare leases, veths and namespaces, and change nothing",
		Long: "Compare leases, veths and the pods' network namespaces, and change nothing. The exit status is\n" +
			"1 if something is not in order; weftd heals that within half a minute, and weft ipam gc at once.",
		Args: cobra.NoArgs,
	}
	output := addOutput(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		list, err := readListing(*stateDir)
		if err != nil {
			return failed(err)
		}
		troubled := slices.DeleteFunc(slices.Clone(list.Leases), func(a attachment) bool { return a.Trouble == "" })
		err = show(c.OutOrStdout(), *output, troubled, func(out io.Writer) error {
			for _, a := range troubled {
				change := cniplugin.Change{Action: "found", Found: a.Found, Why: a.Trouble}
				if _, err := fmt.Fprintln(out, printable(change.String())); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil && len(troubled) > 0 {
			err = fmt.Errorf("%d of %d attachments not in order", len(troubled), len(list.Leases))
		}
		return failed(err)
	}
	return c
}

func newIPAMGCCommand(stateDir *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "gc",
		Short: "Free what no pod uses any more, now",
		Long: "Free what no pod uses any more, lease to pods what they have, and make a damaged lease file\n" +
			"anew from the running pods. weftd does the same every half minute.",
		Args: cobra.NoArgs,
	}
	network := c.Flags().String("network", "weft", "the CNI network that weftd configures")
	output := addOutput(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		changes, err := cniplugin.Reconcile(c.Context(), *stateDir, *network)
		if changes == nil {
			changes = []cniplugin.Change{}
		}
		shown := show(c.OutOrStdout(), *output, changes, func(out io.Writer) error {
			for _, change := range changes {
				if _, err := fmt.Fprintln(out, printable(change.String())); err != nil {
					return err
				}
			}
			return nil
		})
		return failed(errors.Join(err, shown))
	}
	return c
}

func newIPAMReleaseCommand(stateDir *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "release ADDRESS|CONTAINER[/INTERFACE]...",
		Short: "End leases by hand",
		Long: "End the leases of addresses or containers, and remove their veths. A lease whose pod visibly\n" +
			"runs is only ended with --force; the pod loses its network.",
		Args: cobra.MinimumNArgs(1),
	}
	force := c.Flags().Bool("force", false, "even if the pod runs")
	c.RunE = func(c *cobra.Command, names []string) error {
		stores, err := ipam.OpenAll(*stateDir)
		if err != nil {
			return failed(err)
		}
		found, err := cniplugin.Survey(stores)
		if err != nil {
			return failed(err)
		}
		var errs []error
		for _, name := range names {
			change, err := release(c, stores, found, name, *force)
			if err == nil {
				_, err = fmt.Fprintln(c.OutOrStdout(), printable(change.String()))
			}
			errs = append(errs, err)
		}
		return failed(errors.Join(errs...))
	}
	return c
}

// release ends the one lease that is meant by name.
func release(c *cobra.Command, stores []*ipam.Store, found []cniplugin.Found, name string, force bool) (cniplugin.Change, error) {
	addr, _ := netip.ParseAddr(name)
	meant := slices.DeleteFunc(slices.Clone(found), func(f cniplugin.Found) bool {
		return !slices.Contains(f.Addresses, addr) && f.String() != name &&
			(f.ContainerID == "" || !strings.HasPrefix(f.ContainerID, name))
	})
	if len(meant) != 1 {
		return cniplugin.Change{}, fmt.Errorf("%s means %d leases, and not one; `weft ipam list` lists them", printable(name), len(meant))
	}
	i := slices.IndexFunc(stores, func(s *ipam.Store) bool { return s.Network() == meant[0].Network })
	if i < 0 {
		return cniplugin.Change{}, fmt.Errorf("%s has no lease, but a veth: `weft ipam gc` makes one", printable(name))
	}
	return cniplugin.Release(c.Context(), stores[i], meant[0], force)
}
