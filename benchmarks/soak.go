package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"weft/benchmarks/report"
	"weft/benchmarks/soak"
)

// soakCommand runs a cluster in which everything changes, and fails if a weftd there grows.
func soakCommand(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench soak", flag.ExitOnError)
	bin := flags.String("bin", "bin", "`folder` of weft's programs")
	plots := flags.String("plots", "", "`folder` to draw the plot into (default: none)")
	last := flags.Duration("time", 20*time.Minute, "how long")
	_ = flags.Parse(args) // ends the program on an error
	if flags.NArg() > 0 {
		return usage{errors.New("want no arguments")}
	}
	fmt.Printf("soaking for %v: pods, peers, keys and restarts of four nodes\n", *last)
	fmt.Printf("%8s %10s %10s %11s %6s %8s %5s %9s\n", "after", "memory, MB", "goroutines", "descriptors", "pods", "restarts", "lists", "rotations")
	n := 0
	samples, err := soak.Run(ctx, soak.Options{Time: *last, BinDir: *bin, Sample: func(s soak.Sample) {
		if n++; n%12 == 1 { // once a minute
			fmt.Printf("%8s %10.1f %10.0f %11.0f %6d %8d %5d %9d\n", s.At.Round(time.Second), s.Memory/1e6, s.Goroutines, s.Descriptors, s.Pods, s.Restarts, s.Lists, s.Rotations)
		}
	}})
	if err != nil {
		return err
	}
	grows := false
	for _, v := range soak.Judge(samples) {
		verdict := "flat"
		if !v.Flat {
			verdict, grows = "GROWS", true
		}
		fmt.Printf("%-12s %6.1f in the second quarter, %6.1f in the last: %s\n", v.Name, v.Early, v.Late, verdict)
	}
	if *plots != "" {
		if err := report.PlotSoak(*plots, samples); err != nil {
			return err
		}
	}
	if grows {
		return errors.New("weftd grows")
	}
	return nil
}
