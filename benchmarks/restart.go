package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"weft/benchmarks/restart"
)

// restartCommand prints what pods notice of restarts.
func restartCommand(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench restart", flag.ExitOnError)
	bin := flags.String("bin", "bin", "`folder` of weft's programs")
	last := flags.Duration("time", 20*time.Second, "`duration` of each load, in whole seconds")
	rate := flags.Int("rate", 50000, "UDP packets a second")
	_ = flags.Parse(args) // ends the program on an error
	if flags.NArg() > 0 || *last < time.Second || *rate < 1 {
		return usage{errors.New("want no arguments, and a time and a rate of at least 1")}
	}
	fmt.Printf("%-8s %-15s %8s %20s %15s %26s %12s %6s\n", "", "restart", "restarts", "pings lost", "longest gap", "UDP lost", "TCP timeouts", "Gb/s")
	for _, sealed := range []bool{true, false} {
		name := map[bool]string{true: "sealed", false: "vxlan"}[sealed]
		err := restart.Run(ctx, restart.Options{BinDir: *bin, Sealed: sealed, Time: *last, Rate: *rate}, func(r restart.Result) {
			fmt.Printf("%-8s %-15s %8d %10d of %6d %15s %10.0f of %8.0f (%.3f %%) %6d %6.2f\n", name, r.Kind, r.Restarts, r.PingsLost, r.Pings, r.Gap,
				r.UDPLost, r.UDP, 100*r.UDPLost/max(r.UDP, 1), r.TCPTimeouts, r.Gigabits)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
