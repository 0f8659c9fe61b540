package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"weft/internal/stage"
	"weft/kubernetes"
)

// ask is run in a pod, with the address and the URL of each of those that it asks.
const ask = `
while [ $# -gt 0 ]; do
	echo "to $1"
	busybox timeout 5 busybox wget -q -O - "$2" 2>&1
	busybox ping -q -A -c 5 -W 2 "$1" 2>&1
	shift 2
done
exit 0`

// ask fills in the outcomes of probes that start in the pod.
func (s *webPod) ask(ctx context.Context, probes []*stage.Probe) {
	command := []string{"sh", "-c", ask, "sh"}
	for _, p := range probes {
		command = append(command, p.Family.First(p.To.Addrs).String(), kubernetes.WhoamiURL(p.To.Server(p.Family)))
	}
	out, err := s.run(ctx, command...)
	answers := strings.Split("\n"+out, "\nto ")[1:]
	for i, p := range probes {
		switch {
		case err != nil:
			p.Err = err
		case i >= len(answers):
			p.Err = errors.New("it was not asked")
		default:
			p.Err = read(answers[i], p)
		}
	}
}

// read takes what a pod got from one that it asked.
func read(text string, p *stage.Probe) error {
	lines := strings.SplitN(text, "\n", 3)
	if len(lines) < 3 {
		return fmt.Errorf("the output is %q", text)
	}
	answer, err := kubernetes.ParseAnswer(lines[1])
	if err != nil {
		return err
	}
	if p.To.HostName != "" && answer.Server != p.To.HostName {
		return fmt.Errorf("%s has answered instead of %s", answer.Server, p.To.HostName)
	}
	p.SeenAs = answer.Client
	p.Took, err = shortest(lines[2])
	return err
}

// shortest reads ping's summary.
func shortest(summary string) (time.Duration, error) {
	_, figures, _ := strings.Cut(summary, "min/avg/max = ")
	least, _, _ := strings.Cut(figures, "/")
	took, err := time.ParseDuration(least + "ms")
	if err != nil {
		return 0, fmt.Errorf("ping says: %q", summary)
	}
	return took, nil
}
