// Command weft is the operator's view of a node: it asks the weftd that runs there.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"weft/internal/status"
	"weft/internal/version"
)

// failure is an error of the thing itself, not of how the command was called.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// failed marks an error as one of the thing itself.
func failed(err error) error {
	if err == nil {
		return nil
	}
	return failure{err}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := newCommand().ExecuteContext(ctx); err != nil {
		os.Exit(complain(os.Stderr, err))
	}
}

// complain writes an error, of which others may have chosen parts, and returns the exit status.
func complain(out io.Writer, err error) (status int) {
	text := printable(err.Error())
	if errors.As(err, new(failure)) {
		fmt.Fprintln(out, "weft:", text)
		return exitFailure
	}
	fmt.Fprintf(out, "weft: %s; `weft --help` lists commands and flags\n", text)
	return exitUsage
}

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "weft",
		Short:         "Inspect and operate this node's pod network",
		Version:       version.Version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	socket := root.PersistentFlags().String("socket", filepath.Join("/run/weft", status.SocketName), "weftd's status socket")
	root.AddCommand(
		newStatusCommand(socket),
		newPeersCommand(socket),
		newProbeCommand(socket),
		newCaptureCommand(socket),
		newConnectivityCommand(socket),
		newEventsCommand(socket),
		newRoutesCommand(socket),
		newExplainCommand(socket),
		newTopCommand(socket),
		newRotateCommand(socket),
		newConfirmCommand(socket),
		newIPAMCommand(),
		newNodeCommand(),
		newKeygenCommand(),
		newTeardownCommand(),
		newDoctorCommand(socket),
		newSysdumpCommand(socket),
		newManCommand(),
	)
	completePeers(root, socket)
	root.AddCommand(newExitStatusTopic(root))
	return root
}
