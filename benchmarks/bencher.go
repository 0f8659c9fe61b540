package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"weft/benchmarks/machine"
	"weft/benchmarks/measure"
	"weft/benchmarks/report"
	"weft/benchmarks/result"
)

// suite is what one benchmark has of its own.
type suite interface {
	// flags defines the flags that no other suite has.
	flags(to *flag.FlagSet)

	// check returns why nothing can be measured by these flags, with the programs in bin.
	check(bin string) error

	// describe says in r what is going to be measured. It returns the number of samples, or
	// 0 if that says nothing about the time they take.
	describe(ctx context.Context, r *result.Run) (samples int, err error)

	// cells are all that it can measure.
	cells() []measure.Cell

	// measure adds the samples to b.
	measure(ctx context.Context, b *bencher) error
}

// bencher takes a suite from its flags to its report.
type bencher struct {
	suite
	name string // of the command

	bin, out, plots string
	prefix          string // of the names of result files
	ratios          bool   // print nothing but ratios of pairs of systems

	run     *result.Run
	samples int // expected; 0 if their number says nothing
}

// command measures, saves and shows.
func (b *bencher) command(ctx context.Context, args []string) error {
	if err := b.parse(args); err != nil {
		return err
	}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	err := b.measure(ctx, b)
	if err == nil {
		err = b.failed()
	}
	b.run.Took = time.Since(b.run.Started)
	if len(b.run.Samples) == 0 {
		return err
	}
	// Samples taken before a failure, or before Ctrl-C, are worth keeping.
	err = errors.Join(err, b.run.Save(b.out), show(b.run, b.ratios, b.plots))
	fmt.Println("\nresults:", b.out)
	return err
}

func (b *bencher) parse(args []string) error {
	flags := flag.NewFlagSet("bench "+b.name, flag.ExitOnError)
	flags.StringVar(&b.bin, "bin", "bin", "`folder` of weft's programs; in bench/ below it podload and those of other systems")
	flags.StringVar(&b.out, "out", "", "`file` of results (default: BIN/bench/"+b.prefix+"DATE.json)")
	flags.StringVar(&b.plots, "plots", "", "`folder` to draw plots into (default: none)")
	b.flags(flags)
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "Usage: bench %s [flags]\nLists are separated by commas.\n", b.name)
		flags.PrintDefaults()
		fmt.Fprintln(flags.Output(), "It measures:")
		for _, c := range b.cells() {
			fmt.Fprintf(flags.Output(), "  %-15s %s\n", c.Name, c.Title)
		}
	}
	_ = flags.Parse(args) // ends the program on an error
	if flags.NArg() > 0 {
		return usage{fmt.Errorf("unexpected argument %q", flags.Arg(0))}
	}
	if b.out == "" {
		b.out = filepath.Join(b.bin, "bench", b.prefix+time.Now().Format("2006-01-02-150405")+".json")
	}
	if err := makeAbsolute(&b.bin, &b.out); err != nil {
		return err
	}
	if err := b.check(b.bin); err != nil {
		return usage{err}
	}
	return nil
}

// makeAbsolute has paths mean the same from every working directory and in every mount
// namespace.
func makeAbsolute(paths ...*string) error {
	for _, path := range paths {
		var err error
		if *path, err = filepath.Abs(*path); err != nil {
			return fmt.Errorf("find the programs: %w", err)
		}
	}
	return nil
}

// require returns an error with the remedy unless all files exist.
func require(remedy string, files ...string) error {
	for _, file := range files {
		if _, err := os.Stat(file); err != nil {
			return fmt.Errorf("%w; %s", err, remedy)
		}
	}
	return nil
}

// watch is how long the machine is watched to see how busy others keep it.
const watch = 500 * time.Millisecond

// prepare describes the run and the machine that it takes place on.
func (b *bencher) prepare(ctx context.Context) error {
	environment, err := machine.Describe()
	if err != nil {
		return err
	}
	others, err := machine.Watch(watch)
	if err != nil {
		return err
	}
	environment.CPUShare, environment.Versions = others.Share(), map[string]string{}
	if environment.Prices, err = machine.MeasurePrices(); err != nil {
		return err
	}
	b.run = &result.Run{Started: time.Now(), Environment: environment}
	if b.samples, err = b.describe(ctx, b.run); err != nil {
		return err
	}
	for _, why := range environment.Disturbances() {
		logf("WARNING: %s; figures taken now are noise", why)
	}
	return nil
}

// add keeps a sample and prints a line about it, unless ctx has ended: then that may be
// the only reason for what the sample says.
func (b *bencher) add(ctx context.Context, s result.Sample) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	b.run.Samples = append(b.run.Samples, s)
	done, elapsed := len(b.run.Samples), time.Since(b.run.Started)
	progress := fmt.Sprint(elapsed.Round(time.Second))
	if b.samples > 0 {
		left := time.Duration(float64(elapsed) / float64(done) * float64(b.samples-done))
		progress = fmt.Sprintf("%4d/%d, %v left", done, b.samples, left.Round(time.Second))
	}
	logf("%-18s  %-5s  repeat %d  %-14s  %-24s  %s", progress, s.Profile, s.Repeat+1, s.Cell, s.System, b.outcome(s))
	return nil
}

// outcome is all values of a sample, or why there are none.
func (b *bencher) outcome(s result.Sample) string {
	if s.Error != "" {
		return "FAILED: " + s.Error
	}
	var texts []string
	for _, c := range b.cells() {
		for _, m := range c.Metrics {
			if value, ok := s.Values[m.Key]; ok && c.Name == s.Cell {
				texts = append(texts, strings.TrimSpace(fmt.Sprintf("%s %.*f %s", m.Title, m.Digits, value, m.Unit)))
			}
		}
	}
	return strings.Join(texts, ", ")
}

// failed returns an error if a sample failed.
func (b *bencher) failed() error {
	if slices.ContainsFunc(b.run.Samples, func(s result.Sample) bool { return s.Error != "" }) {
		return errors.New("not everything was measured")
	}
	return nil
}

// rotate returns the items in another order in each repeat: so none is always first.
func rotate[T any](items []T, repeat int) []T {
	first := repeat % len(items)
	return slices.Concat(items[first:], items[:first])
}

// logf writes to standard error: standard output is for results.
func logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// show prints a run, and draws it if there is a folder for plots.
func show(r *result.Run, ratios bool, plots string) error {
	report.Print(os.Stdout, r, ratios)
	if plots == "" {
		return nil
	}
	return report.Plots(plots, r)
}

// choice defines a flag whose value is a list of some of the words.
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
