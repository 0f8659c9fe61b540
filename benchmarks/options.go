package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"weft/benchmarks/measure"
	"weft/benchmarks/system"
	"weft/internal/config"
	"weft/internal/testnet"
)

// options are what the flags of run and quick say.
type options struct {
	profiles []string
	systems  []string
	cells    []string
	repeat   int
	time     time.Duration
	bin      string
	out      string
	plots    string

	// ratios has only ratios to the baseline printed.
	ratios bool
}

var allProfiles = []string{string(testnet.Full), string(testnet.NoTunnel), string(testnet.Bare)}

// fullOptions are the defaults of run.
func fullOptions() *options {
	o := &options{profiles: allProfiles, repeat: 5, time: 4 * time.Second}
	for _, s := range system.All() {
		o.systems = append(o.systems, s.Name)
	}
	for _, c := range measure.All() {
		o.cells = append(o.cells, c.Name)
	}
	return o
}

// quickOptions are the defaults of quick.
func quickOptions() *options {
	return &options{
		profiles: allProfiles,
		systems:  []string{system.Baseline, system.WeftVXLAN(defaultDriver())},
		cells:    []string{"tcp1", "tcp8", "udp64", "rtt"},
		repeat:   1, time: time.Second,
		ratios: true,
	}
}

// defaultDriver is the TUN driver that weftd uses unless it is told otherwise.
func defaultDriver() string {
	flags := pflag.NewFlagSet("weftd", pflag.ContinueOnError)
	config.AddFlags(flags)
	return flags.Lookup("tun-driver").Value.String()
}

// parse reads the flags of run and quick.
func (o *options) parse(args []string) error {
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	choice(flags, &o.profiles, "profiles", "offload `profiles` of the wire", allProfiles)
	choice(flags, &o.systems, "systems", "`systems` to compare", systemNames())
	choice(flags, &o.cells, "cells", "`kinds` of traffic, see below", cellNames())
	flags.IntVar(&o.repeat, "repeat", o.repeat, "`number` of times that everything is measured")
	flags.DurationVar(&o.time, "time", o.time, "`duration` of a measurement; TCP takes whole seconds")
	flags.StringVar(&o.bin, "bin", "bin", "`folder` of weftd and weft-cni; in bench/ below it podload and wireguard-go")
	flags.StringVar(&o.out, "out", "", "`file` of results (default: BIN/bench/DATE.json)")
	flags.StringVar(&o.plots, "plots", "", "`folder` to draw plots into (default: none)")
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "Usage: bench run|quick [flags]\nLists are separated by commas.")
		flags.PrintDefaults()
		fmt.Fprintln(flags.Output(), "Kinds of traffic:")
		for _, c := range measure.All() {
			fmt.Fprintf(flags.Output(), "  %-15s %s\n", c.Name, c.Title)
		}
	}
	_ = flags.Parse(args) // ends the program on an error
	switch {
	case flags.NArg() > 0:
		return usage{fmt.Errorf("unexpected argument %q", flags.Arg(0))}
	case o.repeat < 1 || o.time < 100*time.Millisecond:
		return usage{errors.New("-repeat is at least 1, -time at least 100ms")}
	}
	if o.out == "" {
		o.out = filepath.Join(o.bin, "bench", time.Now().Format("2006-01-02-150405")+".json")
	}
	return o.locate()
}

// locate makes the programs' folder absolute: they are started in other namespaces,
// some with other folders mounted.
func (o *options) locate() (err error) {
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return fmt.Errorf("find the programs: %w", err)
	}
	for _, program := range []string{"weftd", "weft-cni", "bench/podload", "bench/wireguard-go"} {
		if _, err := os.Stat(filepath.Join(o.bin, program)); err != nil {
			return usage{fmt.Errorf("%w; `make bench` builds it, and -bin says where it is", err)}
		}
	}
	return nil
}

func (o *options) podload() string { return filepath.Join(o.bin, "bench", "podload") }

func (o *options) programs() system.Programs {
	return system.Programs{Weft: o.bin, WireGuard: filepath.Join(o.bin, "bench", "wireguard-go")}
}

// chosenSystems returns the systems in the order of tables.
func (o *options) chosenSystems() []system.System {
	return slices.DeleteFunc(system.All(), func(s system.System) bool { return !slices.Contains(o.systems, s.Name) })
}

func (o *options) chosenCells() []measure.Cell {
	return slices.DeleteFunc(measure.All(), func(c measure.Cell) bool { return !slices.Contains(o.cells, c.Name) })
}

func systemNames() (names []string) {
	for _, s := range system.All() {
		names = append(names, s.Name)
	}
	return names
}

func cellNames() (names []string) {
	for _, c := range measure.All() {
		names = append(names, c.Name)
	}
	return names
}

// choice adds a flag whose value is a list of some of the words.
func choice(flags *flag.FlagSet, to *[]string, name, help string, words []string) {
	help = fmt.Sprintf("%s, of %s (default %s)", help, strings.Join(words, ","), strings.Join(*to, ","))
	flags.Func(name, help, func(text string) error {
		chosen := strings.Split(text, ",")
		for _, c := range chosen {
			if !slices.Contains(words, c) {
				return fmt.Errorf("%q is none of %s", c, strings.Join(words, ", "))
			}
		}
		*to = chosen
		return nil
	})
}
