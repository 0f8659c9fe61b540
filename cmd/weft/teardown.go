package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"weft/cniplugin"
	"weft/cniplugin/wiring"
	"weft/control"
	"weft/daemon/handover"
	"weft/internal/alone"
	"weft/internal/config"
	"weft/internal/hostcheck"
	"weft/internal/hostnet"
	"weft/internal/marks"
	"weft/internal/nftable"
	"weft/internal/nodefile"
	"weft/internal/status"
	"weft/router/tun"
)

// teardown is what `weft teardown` did.
type teardown struct {
	Removed []string `json:"removed"`

	// Exposed are the pods that run on without protection, by the names of their veths.
	Exposed []string `json:"exposed"`

	Purged bool `json:"purged"` // --purge
}

func newTeardownCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "teardown",
		Short: "Remove what weft set up on this host, its protection included",
		Long: "Remove what weft set up on this host, once weftd is stopped: the guard table, the routes and\n" +
			"rules, the device of a weftd that died, the conflist, and weftd's files in runDir. Without the\n" +
			"guard table, pods' packets may leave in clear, so this is refused while pods run. Leases, the\n" +
			"snapshot and the node's key stay in their folders.",
		Args: cobra.NoArgs,
	}
	exits(c, "all that weft set up is removed", "refused, because weftd or pods run; or something could not be removed")
	check := c.Flags().Bool("check", false, "only say whether pods are in the way, and change nothing")
	var how manner
	c.Flags().BoolVar(&how.force, "force", false, "even while pods run: their packets may then leave in clear")
	c.Flags().BoolVar(&how.purge, "purge", false, "remove leases, snapshot, the node's key and weft-cni too")
	c.Flags().BoolVar(&how.wait, "wait", false, "wait until neither weftd nor pods run")
	c.Flags().BoolVar(&how.stay, "stay", false, "when all is removed, wait to be ended, as in a DaemonSet")
	addConfigFlags(c, "config", "run-dir", "cni-conf-dir")
	output := addOutput(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		settings, err := config.Load(c.Flags(), os.Environ())
		if err != nil {
			return err
		}
		if *check {
			_, err := removable(settings, how.force)
			return failed(err)
		}
		done, err := tearDownAlone(c.Context(), settings, how)
		for said := ""; err != nil && how.wait && sleep(c.Context(), waitInterval); done, err = tearDownAlone(c.Context(), settings, how) {
			if err.Error() != said {
				said = err.Error()
				fmt.Fprintln(c.ErrOrStderr(), "weft: waiting:", printable(said))
			}
		}
		if err != nil {
			return failed(err)
		}
		err = show(c.OutOrStdout(), *output, done, func(out io.Writer) error { return printTeardown(out, done) })
		if err == nil && how.stay {
			<-c.Context().Done()
		}
		return failed(err)
	}
	return c
}

// manner is how to tear down.
type manner struct{ force, purge, wait, stay bool }

// waitInterval is how often --wait tries again.
const waitInterval = 2 * time.Second

// sleep returns false if ctx ends before.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// tearDownAlone is tearDown while no weftd runs.
func tearDownAlone(ctx context.Context, c config.Config, how manner) (teardown, error) {
	lock, err := alone.Lock(c.RunDir)
	if errors.Is(err, alone.ErrRuns) {
		err = fmt.Errorf("%w (systemctl stop weftd, or delete the DaemonSet)", err)
	}
	if err != nil {
		return teardown{}, err
	}
	defer lock.Close()
	done, err := tearDown(ctx, c, how.force)
	if err == nil && how.purge {
		err = done.purge(c)
	}
	return done, err
}

func tearDown(ctx context.Context, c config.Config, force bool) (teardown, error) {
	done := teardown{Removed: []string{}}
	if _, err := removable(c, force); err != nil {
		return done, err
	}
	// First what has runtimes add pods, last what protects those that there are.
	conflist := filepath.Join(c.CNI.ConfDir, config.ConflistName)
	removed, err := removeConflist(conflist)
	if err != nil {
		return done, err
	}
	if removed {
		done.Removed = append(done.Removed, conflist)
	}
	if err := handover.Forget(c.RunDir); err != nil {
		return done, err
	}
	for _, name := range []string{nodefile.Name, nodefile.ForwardingName, nodefile.ProvenName, handover.SocketName, status.SocketName, status.LingerName} {
		path := filepath.Join(c.RunDir, name)
		switch err := os.Remove(path); {
		case err == nil:
			done.Removed = append(done.Removed, path)
		case !errors.Is(err, fs.ErrNotExist):
			return done, fmt.Errorf("remove what weftd wrote in the run directory: %w", err)
		}
	}
	// Again: an ADD may have been under way. From here on none succeeds, as it looks for nodefile.Name last.
	if done.Exposed, err = removable(c, force); err != nil {
		return done, err
	}
	if removed, err := tun.Remove(c.TUN.Name); err != nil {
		return done, err
	} else if removed {
		done.Removed = append(done.Removed, "the device "+c.TUN.Name)
	}
	if err := hostnet.New(slog.New(slog.DiscardHandler)).Remove(ctx); err != nil {
		return done, err
	}
	if err := hostcheck.Remove(ctx); err != nil {
		return done, err
	}
	done.Removed = append(done.Removed, "weft's routes and rules", "the nftables tables inet weft and bridge weft")
	return done, nil
}

// removable returns the pods that are left without protection, by the names of their veths, or an error
// if that is not allowed. Where weft has been removed already, as by --force, it changes nothing for
// them.
func removable(c config.Config, force bool) (pods []string, err error) {
	pods, err = wiring.PodLinks()
	if err != nil || len(pods) == 0 || force {
		return pods, err
	}
	// Without the table, which any program can remove, weft's routes still protect; without the file,
	// which is removed before both, neither does.
	_, written := os.Stat(filepath.Join(c.RunDir, nodefile.Name))
	_, table := nftable.Comment(nftable.Inet, marks.Table)
	if errors.Is(written, fs.ErrNotExist) && errors.Is(table, nftable.ErrAbsent) {
		return pods, nil
	}
	return nil, fmt.Errorf("%d %s still on this node (%s): without the guard table, pods' packets could leave in clear; drain the node first, or add --force",
		len(pods), plural(len(pods), "pod"), control.Few(pods))
}

// removeConflist removes the conflist if its first plugin is weft-cni.
func removeConflist(path string) (removed bool, err error) {
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read the conflist: %w", err)
	}
	var list struct {
		Plugins []struct{ Type string }
	}
	if err := json.Unmarshal(data, &list); err != nil || len(list.Plugins) == 0 || list.Plugins[0].Type != cniplugin.Type {
		return false, nil
	}
	if err := os.Remove(path); err != nil {
		return false, fmt.Errorf("remove the conflist: %w", err)
	}
	return true, nil
}

func printTeardown(out io.Writer, done teardown) error {
	for _, what := range done.Removed {
		fmt.Fprintf(out, "removed %s\n", what)
	}
	if len(done.Exposed) > 0 {
		fmt.Fprintf(out, "WARNING: %d %s left without protection: %s\n", len(done.Exposed), plural(len(done.Exposed), "pod"), control.Few(done.Exposed))
	}
	if done.Purged {
		return nil
	}
	_, err := fmt.Fprintln(out, "kept: leases and snapshot (stateDir), and the node's key (keyFile)")
	return err
}
