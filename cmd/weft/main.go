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
	"strings"
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
	if command, err := newCommand().ExecuteContextC(ctx); err != nil {
		os.Exit(complain(os.Stderr, command, err))
	}
}

// complain writes an error of a command, of which others may have chosen parts, and returns the exit
// status.
func complain(out io.Writer, command *cobra.Command, err error) (status int) {
	if errors.As(err, new(failure)) {
		fmt.Fprintln(out, "weft:", printable(err.Error()))
		return exitFailure
	}
	fmt.Fprintf(out, "weft: %s; `%s --help` shows how to call it\n", printable(inOneSentence(err)), command.CommandPath())
	return exitUsage
}

// inOneSentence is the text of an error of use. Cobra writes what may have been meant on lines of its own.
func inOneSentence(err error) string {
	text, meant, ok := strings.Cut(err.Error(), "\n\nDid you mean this?\n")
	if ok {
		text += "; did you mean " + strings.Join(strings.Fields(meant), " or ") + "?"
	}
	return text
}

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "weft",
		Short:         "Inspect and operate this node's pod network",
		Version:       version.Version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetVersionTemplate("weft {{.Version}}\n") // as weftd prints it
	socket := root.PersistentFlags().String("socket", filepath.Join("/run/weft", status.SocketName), "weftd's status socket")
	root.AddCommand(
		newStatusCommand(socket),
		newReadyCommand(socket),
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
		newInitCommand(),
		newJoinCommand(),
		newInviteCommand(),
		newKeygenCommand(),
		newInstallCNICommand(),
		newTeardownCommand(),
		newDoctorCommand(socket),
		newSysdumpCommand(socket),
		newVersionCommand(),
		newManCommand(),
	)
	completePeers(root, socket)
	root.AddCommand(newExitStatusTopic(root))
	return root
}
