// Command podload runs one end of a measurement in a pod, in a process of its own:
//
//	podload sink PORT                              counts until its standard input ends
//	podload source ADDR:PORT small|imix RATE TIME  RATE in packets/s; 0: as fast as it can
//
// sink writes "ready" when it listens. Both end with a line of JSON: load.Count.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"time"

	"weft/benchmarks/load"
)

func main() {
	// Nothing is allocated while it measures; so the collector needs not run.
	debug.SetGCPercent(-1)
	report, err := run(os.Args[1:])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(report)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "podload:", err)
		os.Exit(1)
	}
}

func run(args []string) (report any, err error) {
	command := ""
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	switch {
	case command == "sink" && len(args) == 1:
		return sink(args[0])
	case command == "source" && len(args) == 4:
		return source(args)
	}
	return nil, errors.New("usage: podload sink|source …; it is started by the benchmarks")
}

func ready() { fmt.Println("ready") }

func sink(port string) (any, error) {
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	var stop atomic.Bool
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop.Store(true)
	}()
	return load.Sink(uint16(number), &stop, ready)
}

func source(args []string) (any, error) {
	to, err := netip.ParseAddrPort(args[0])
	if err != nil {
		return nil, err
	}
	sizes, known := map[string]load.Sizes{"small": load.Small, "imix": load.IMIX}[args[1]]
	if !known {
		return nil, fmt.Errorf("unknown sizes %q: want small or imix", args[1])
	}
	perSecond, err := strconv.ParseFloat(args[2], 64)
	if err != nil {
		return nil, err
	}
	during, err := time.ParseDuration(args[3])
	if err != nil {
		return nil, err
	}
	return load.Source(to, sizes, perSecond, during)
}
