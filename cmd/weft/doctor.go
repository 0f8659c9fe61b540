package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"weft/internal/config"
	"weft/internal/doctor"
	"weft/internal/status"
)

func newDoctorCommand(socket *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Check this host, and say what to do about each fault",
		Long: "Check this host for what weft needs and for what is in its way, with or without a running weftd.\n" +
			"Faults come first, the causes before what follows from them, each with its remedy. Nothing is\n" +
			"changed. The exit status is 1 if a check failed, and 0 if there are warnings only.\n\n" +
			"If weftd has its configuration from flags or variables, give the same ones.",
		Args: cobra.NoArgs,
	}
	exits(c, "no check failed; there may be warnings", "a check failed")
	addConfigFlags(c, "config", "run-dir", "state-dir", "cni-conf-dir")
	output := addOutput(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		report := doctor.Run(c.Context(), examined(c, *socket))
		if err := c.Context().Err(); err != nil {
			return failed(err)
		}
		if err := show(c.OutOrStdout(), *output, report, func(out io.Writer) error { return printDoctor(out, report) }); err != nil {
			return failed(err)
		}
		if n := report.Count(doctor.Failed); n > 0 {
			return failed(fmt.Errorf("%d %s failed", n, plural(n, "check")))
		}
		return nil
	}
	return c
}

// addConfigFlags gives a command a flag for each key of weftd's configuration, and shows those
// that are named.
func addConfigFlags(c *cobra.Command, shown ...string) {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	config.AddFlags(flags)
	flags.VisitAll(func(f *pflag.Flag) {
		f.Hidden = true
		for _, name := range shown {
			f.Hidden = f.Hidden && !strings.HasPrefix(f.Name, name)
		}
	})
	c.PersistentFlags().AddFlagSet(flags)
}

// examined is the input of doctor and sysdump. A configuration that can't be read is a finding. The
// socket is that of the run directory, unless another one is named.
func examined(c *cobra.Command, socket string) doctor.Input {
	settings, err := config.Load(c.Flags(), os.Environ())
	if err == nil && !c.Flags().Changed("socket") {
		socket = filepath.Join(settings.RunDir, status.SocketName)
	}
	return doctor.Input{Config: settings, ConfigPath: config.Path(c.Flags(), os.Environ()), ConfigErr: err, Socket: socket, Root: "/"}
}

// printDoctor writes a summary, and two lines for each fault: what was found, and what to do.
// Checks that are skipped for one reason share a line.
func printDoctor(out io.Writer, r doctor.Report) error {
	node := r.Node
	if node == "" {
		node = "this host"
	}
	count := func(result doctor.Result, one, many string) string {
		n := r.Count(result)
		if n == 1 {
			many = one
		}
		return fmt.Sprintf("%d %s", n, many)
	}
	fmt.Fprintf(out, "%s: %s, %s, %s, %s\n", printable(node), count(doctor.Failed, "check failed", "checks failed"),
		count(doctor.Warning, "warning", "warnings"), count(doctor.Skipped, "skipped", "skipped"), count(doctor.OK, "ok", "ok"))
	for i := 0; i < len(r.Findings); i++ {
		f := r.Findings[i]
		codes := []string{f.Code}
		for ; i+1 < len(r.Findings) && f.Result == doctor.Skipped && r.Findings[i+1].Found == f.Found; i++ {
			codes = append(codes, r.Findings[i+1].Code)
		}
		label := string(f.Result)
		if f.Result == doctor.Failed || f.Result == doctor.Warning {
			label = strings.ToUpper(label)
		}
		text := fmt.Sprintf("%-8s %s: %s\n", label, strings.Join(codes, ", "), oneLine(f.Found))
		if f.Remedy != "" {
			text += fmt.Sprintf("%-8s %s\n", "", oneLine(f.Remedy))
		}
		if _, err := io.WriteString(out, text); err != nil {
			return err
		}
	}
	return nil
}
