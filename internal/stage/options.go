package stage

import (
	"flag"
	"fmt"
	"os"

	"weft/internal/config"
)

// The exit statuses of a demo; it is 0 if everything worked.
const (
	ExitFailure     = 1   // something did not work
	ExitUsage       = 2   // it was called wrongly
	ExitInterrupted = 130 // it was interrupted, and has cleaned up
)

// Options are what every demo can be asked for.
type Options struct {
	// Bin holds weftd, weft-cni and weft.
	Bin string

	// Driver is the TUN driver; empty means weftd's own choice.
	Driver string

	// Keep leaves everything running at the end. Clean removes what that has left, and
	// does nothing else.
	Keep, Clean bool

	encap string
}

// Parse reads the command line, with the flags that were defined before and those of
// Options. If it can't, it says why and ends the process. Where the process is a helper that another
// demo has started, Parse does its work, and ends it.
func Parse() Options {
	if len(os.Args) == 2 && os.Args[1] == forwardArgument {
		if err := forwardPage(); err != nil {
			fmt.Fprintln(os.Stderr, "demo:", err)
			os.Exit(ExitFailure)
		}
		os.Exit(0)
	}
	var o Options
	flag.StringVar(&o.Bin, "bin", "bin", "`folder` of weftd, weft-cni and weft")
	flag.StringVar(&o.Driver, "driver", "", "TUN `driver` (default: weftd's own)")
	flag.StringVar(&o.encap, "encap", string(config.EncapsulationSealed), "`format` of the datagrams between nodes: sealed or vxlan")
	flag.BoolVar(&o.Keep, "keep", false, "leave everything running at the end")
	flag.BoolVar(&o.Clean, "clean", false, "remove what --keep left, and do nothing else")
	flag.Parse()
	if flag.NArg() > 0 {
		Refuse("unexpected argument %q", flag.Arg(0))
	}
	if !o.Sealed() && o.encap != string(config.EncapsulationVXLAN) {
		Refuse("unknown encapsulation %q; there are sealed and vxlan", o.encap)
	}
	return o
}

// Sealed says whether nodes encrypt what they send to each other.
func (o Options) Sealed() bool { return o.encap == string(config.EncapsulationSealed) }

// Refuse ends the process because it was called wrongly.
func Refuse(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "demo: "+format+"\n", args...)
	os.Exit(ExitUsage)
}
