package control

import "time"

// ReconnectPause is about how long a node waits between two attempts to reach a control source
// that is unreachable: short enough for the node to be current within 5 seconds after it is
// reachable again, and in a large cluster long enough for all nodes together to make no more
// than a thousand attempts a second, so that the source has time to start.
func ReconnectPause(nodes int) time.Duration {
	const (
		shortest = time.Second
		longest  = 10 * time.Second
		each     = time.Millisecond
	)
	return min(max(shortest, time.Duration(nodes)*each), longest)
}
