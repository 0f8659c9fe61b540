package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"weft/cniplugin/leases"
	"weft/cniplugin/wiring"
	"weft/control"
	"weft/internal/nodefile"
	"weft/ipam"
)

func newIPAMCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "ipam",
		Short: "Inspect and repair the addresses of this node's pods",
		Long: "Inspect and repair the addresses of this node's pods. These commands read the lease files\n" +
			"themselves, so they also work while weftd is stopped.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() }, // or a wrong word would be none
	}
	stateDir := c.PersistentFlags().String("state-dir", "/var/lib/weft", "weftd's stateDir")
	runDir := c.PersistentFlags().String("run-dir", "/run/weft", "weftd's runDir")
	c.AddCommand(newIPAMListCommand(stateDir, runDir), newIPAMVethCommand(stateDir), newIPAMCheckCommand(stateDir, runDir), newIPAMReleaseCommand(stateDir, runDir), newIPAMGCCommand(stateDir, runDir))
	return c
}

// listing is what `weft ipam list` shows.
type listing struct {
	Leases      []attachment `json:"leases"`
	CoolingDown []cooling    `json:"coolingDown"`

	stores []*ipam.Store // those that could be read
}

type attachment struct {
	leases.Found
	Trouble string `json:"trouble,omitempty"`
}

type cooling struct {
	Network   string       `json:"network"`
	Addresses []netip.Addr `json:"addresses"`
}

func newIPAMListCommand(stateDir, runDir *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "list",
		Short: "List the pods and their addresses",
		Long: "List the pods and their addresses. PROCESSES are the first few in the pod's network namespace;\n" +
			"if there are any, the pod is running.",
		Args: cobra.NoArgs,
	}
	output := addOutput(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		stores, err := openStores(*stateDir)
		if err != nil {
			return err
		}
		list, err := readListing(stores, *runDir)
		shown := show(c.OutOrStdout(), *output, list, func(out io.Writer) error { return printListing(out, list, time.Now()) })
		return failed(errors.Join(err, shown))
	}
	return c
}

// openStores returns the leases of all networks in stateDir. Opening makes nothing, so a
// folder that is not there was named wrongly.
func openStores(stateDir string) ([]*ipam.Store, error) {
	if !filepath.IsAbs(stateDir) {
		return nil, fmt.Errorf("--state-dir %s: the path must be absolute", strconv.Quote(stateDir))
	}
	if info, err := os.Stat(stateDir); errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return nil, failure{fmt.Errorf("there is no folder %s; if weftd has another stateDir, name it with --state-dir", stateDir)}
	}
	stores, err := ipam.OpenAll(stateDir)
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("not allowed to read the leases in %s: run as root", stateDir)
	}
	return stores, failed(err)
}

// readListing returns all that can be read; the error says what can't be. Which addresses
// are this node's is known as weftd has described it in runDir.
func readListing(stores []*ipam.Store, runDir string) (listing, error) {
	list := listing{Leases: []attachment{}, CoolingDown: []cooling{}}
	var errs []error
	for _, s := range stores {
		_, addresses, err := s.List()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		list.stores = append(list.stores, s)
		if len(addresses) > 0 {
			list.CoolingDown = append(list.CoolingDown, cooling{s.Network(), addresses})
		}
	}
	unreadable := len(errs) > 0
	node, described := nodefile.Read(runDir)
	found, err := leases.Survey(list.stores)
	for _, f := range found {
		trouble := f.Trouble()
		if f.Network == "" && unreadable {
			trouble = "its lease, if any, can't be read"
		}
		if trouble == "" && described == nil && leases.Stranded(f.Lease, node.PodCIDRs) {
			trouble = fmt.Sprintf("it is stranded: the node's pod CIDRs are now %s, and no other node reaches it; delete the pod", control.Join(node.PodCIDRs))
		}
		list.Leases = append(list.Leases, attachment{f, trouble})
	}
	return list, errors.Join(append(errs, err)...)
}

func printListing(out io.Writer, list listing, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "ADDRESSES\tPOD\tCONTAINER\tVETH\tNETWORK\tAGE\tPROCESSES\tTROUBLE\n")
	for _, a := range list.Leases {
		container, age := "", ""
		if a.ContainerID != "" {
			container = shortID(a.ContainerID) + "/" + a.IfName
		}
		if !a.Since.IsZero() {
			age = now.Sub(a.Since).Round(time.Second).String()
		}
		var processes []string
		for _, pid := range a.Processes {
			processes = append(processes, strconv.Itoa(pid))
		}
		cells := []string{control.Join(a.Addresses), a.Pod, container, a.Veth, a.Network, age, strings.Join(processes, ", "), a.Trouble}
		for i, text := range cells {
			if cells[i] = oneLine(text); text == "" {
				cells[i] = "-"
			}
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, r := range list.CoolingDown {
		if _, err := fmt.Fprintf(out, "\ncooling down in %s, or about to be free: %s\n", oneLine(r.Network), control.Join(r.Addresses)); err != nil {
			return err
		}
	}
	return nil
}

// shortID is as much of a container's ID as runtimes' own commands show.
func shortID(id string) string { return id[:min(len(id), 13)] }

func newIPAMCheckCommand(stateDir, runDir *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "Compare leases, veths and namespaces without changing anything",
		Long: "Compare leases, veths and the pods' network namespaces without changing anything. The exit status\n" +
			"is 1 if they disagree. weftd repairs most of that within half a minute, and weft ipam gc at\n" +
			"once. A pod whose address is outside the node's pod CIDRs stays stranded until it is deleted.",
		Args: cobra.NoArgs,
	}
	exits(c, "leases, veths and namespaces agree", "they disagree, or can't be read")
	output := addOutput(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		stores, err := openStores(*stateDir)
		if err != nil {
			return err
		}
		list, err := readListing(stores, *runDir)
		err = errors.Join(err, wiring.CheckNamespace(*runDir))
		troubled := slices.DeleteFunc(slices.Clone(list.Leases), func(a attachment) bool { return a.Trouble == "" })
		shown := show(c.OutOrStdout(), *output, troubled, func(out io.Writer) error {
			var changes []leases.Change
			for _, a := range troubled {
				changes = append(changes, leases.Change{Action: "found", Found: a.Found, Why: a.Trouble})
			}
			return printChanges(out, changes)
		})
		if err == nil && len(troubled) > 0 {
			err = fmt.Errorf("%d of %d %s inconsistent; `weft ipam gc` repairs what it can", len(troubled), len(list.Leases), plural(len(list.Leases), "attachment"))
		}
		return failed(errors.Join(err, shown))
	}
	return c
}

// printChanges writes a line for each.
func printChanges(out io.Writer, changes []leases.Change) error {
	for _, change := range changes {
		if _, err := fmt.Fprintln(out, oneLine(change.String())); err != nil {
			return err
		}
	}
	return nil
}

func newIPAMGCCommand(stateDir, runDir *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "gc",
		Short: "Free unused addresses and repair leases now",
		Long: "Free addresses that no pod uses any more, lease to pods the addresses that they have, and rebuild\n" +
			"a damaged lease file from the running pods. weftd does the same every half minute. The exit\n" +
			"status is 1 if something is left that only you can repair.",
		Args: cobra.NoArgs,
	}
	network := c.Flags().String("network", "weft", "weftd's network, as cni.name says")
	output := addOutput(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		stores, err := openStores(*stateDir)
		if err != nil {
			return err
		}
		// In a network of another name, pods would be leased what is another's.
		if names := networks(stores); len(names) > 0 && !slices.Contains(names, *network) {
			return failed(fmt.Errorf("there are no leases of a network %s, but of %s; name weftd's network with --network",
				strconv.Quote(*network), oneLine(strings.Join(names, ", "))))
		}
		if err := wiring.CheckNamespace(*runDir); err != nil {
			return failed(err)
		}
		changes, err := leases.Reconcile(c.Context(), *stateDir, *network, nil)
		shown := show(c.OutOrStdout(), *output, append([]leases.Change{}, changes...), func(out io.Writer) error { return printChanges(out, changes) })
		left := slices.DeleteFunc(slices.Clone(changes), func(c leases.Change) bool { return c.Action != leases.Kept })
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%d %s left that only you can repair", len(left), plural(len(left), "trouble"))
		}
		return failed(errors.Join(err, shown))
	}
	return c
}

func networks(stores []*ipam.Store) []string {
	var names []string
	for _, s := range stores {
		names = append(names, s.Network())
	}
	return names
}

func newIPAMReleaseCommand(stateDir, runDir *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "release NAMESPACE/POD|ADDRESS|CONTAINER[/INTERFACE]...",
		Short: "Release leases by hand",
		Long: "Release the leases of pods, addresses or containers, and remove their veths. The beginning of a\n" +
			"container's ID is enough. A lease whose pod has processes needs --force; the pod loses its\n" +
			"network. If one of several names is wrong, nothing is released.",
		Args: cobra.MatchAll(cobra.MinimumNArgs(1), noEmptyArgs),
	}
	force := c.Flags().Bool("force", false, "even if the pod runs")
	output := addOutput(c)
	c.RunE = func(c *cobra.Command, names []string) error {
		stores, err := openStores(*stateDir)
		if err != nil {
			return err
		}
		if err := wiring.CheckNamespace(*runDir); err != nil {
			return failed(err)
		}
		list, unreadable := readListing(stores, *runDir)
		var meant []leases.Found
		var errs []error
		for _, name := range names {
			f, err := list.lookUp(name)
			again := func(o leases.Found) bool { return o.Network == f.Network && o.Attachment == f.Attachment }
			if err == nil && !slices.ContainsFunc(meant, again) {
				meant = append(meant, f)
			}
			errs = append(errs, err)
		}
		if err := errors.Join(errs...); err != nil {
			return failed(errors.Join(err, unreadable))
		}
		changes := []leases.Change{}
		for _, f := range meant {
			store := stores[slices.Index(networks(stores), f.Network)]
			change, err := leases.Release(c.Context(), store, f, *force)
			if err == nil {
				changes = append(changes, change)
			}
			errs = append(errs, err)
		}
		shown := show(c.OutOrStdout(), *output, changes, func(out io.Writer) error { return printChanges(out, changes) })
		return failed(errors.Join(append(errs, shown)...))
	}
	return c
}

func noEmptyArgs(_ *cobra.Command, names []string) error {
	if slices.Contains(names, "") {
		return errors.New("an argument is empty; name an address or a container")
	}
	return nil
}

func newIPAMVethCommand(stateDir *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "veth NAMESPACE/POD|ADDRESS|CONTAINER[/INTERFACE]",
		Short: "Print the host side of a pod's veth",
		Long: "Print the name of the host side of a pod's veth, for commands that take an interface. The\n" +
			"beginning of a container's ID is enough.",
		Args: cobra.MatchAll(cobra.ExactArgs(1), noEmptyArgs),
	}
	c.RunE = func(c *cobra.Command, names []string) error {
		stores, err := openStores(*stateDir)
		if err != nil {
			return err
		}
		list, unreadable := readListing(stores, "")
		f, err := list.lookUp(names[0])
		if err != nil {
			return failed(errors.Join(err, unreadable))
		}
		if !f.HasVeth {
			return failed(fmt.Errorf("%s has no veth of weft-cni's; `weft ipam check` lists what is inconsistent", f.Attachment))
		}
		_, err = fmt.Fprintln(c.OutOrStdout(), f.Veth)
		return failed(err)
	}
	return c
}

// lookUp returns the one lease that is meant by a pod, an address, a container, or the
// beginning of its ID.
func (l listing) lookUp(name string) (leases.Found, error) {
	addr, _ := netip.ParseAddr(name)
	id, ifName, _ := strings.Cut(name, "/")
	var exact, alike []leases.Found
	for _, a := range l.Leases {
		switch {
		case slices.Contains(a.Addresses, addr), a.ContainerID == name, a.String() == name, a.Pod == name:
			exact = append(exact, a.Found)
		case id != "" && strings.HasPrefix(a.ContainerID, id) && (ifName == "" || a.IfName == ifName):
			alike = append(alike, a.Found)
		}
	}
	if len(exact) > 0 {
		alike = exact
	}
	quoted := strconv.Quote(name)
	switch {
	case len(alike) == 0:
		return leases.Found{}, fmt.Errorf("no pod has %s; `weft ipam list` lists the pods and their addresses", quoted)
	case len(alike) > 1:
		var candidates []string
		for _, f := range alike {
			candidates = append(candidates, fmt.Sprintf("%s (%s)", f.Attachment, control.Join(f.Addresses)))
		}
		return leases.Found{}, fmt.Errorf("%s matches %s; name one by its address", quoted, strings.Join(candidates, " or "))
	case alike[0].Network == "" && !alike[0].Complete:
		return leases.Found{}, fmt.Errorf("%s has no lease, only a veth that an unfinished ADD left; if it stays, remove it (ip link delete %s)", quoted, alike[0].Veth)
	case alike[0].Network == "":
		return leases.Found{}, fmt.Errorf("the pod that has %s has no lease; `weft ipam gc` makes one", quoted)
	}
	return alike[0], nil
}
