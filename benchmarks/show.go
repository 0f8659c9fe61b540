package main

import (
	"errors"
	"flag"
	"fmt"

	"weft/benchmarks/result"
)

// showCommand draws tables and plots of a run that was saved.
func showCommand(args []string) error {
	flags := flag.NewFlagSet("bench show", flag.ExitOnError)
	plots := flags.String("plots", "", "`folder` to draw plots into (default: none)")
	ratios := flags.Bool("ratios", false, "only ratios of pairs of systems")
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "Usage: bench show [flags] FILE")
		flags.PrintDefaults()
	}
	_ = flags.Parse(args) // ends the program on an error
	if flags.NArg() != 1 {
		return usage{errors.New("want one file of results")}
	}
	r, err := result.Load(flags.Arg(0))
	if err != nil {
		return err
	}
	return show(r, *ratios, *plots)
}
