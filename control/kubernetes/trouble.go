package kubernetes

import "time"

// tellInterval is how often another reason is told of a trouble that goes on.
const tellInterval = 30 * time.Second

// trouble is something that goes on until it is over, and may have one reason after another.
// The zero value is none.
type trouble struct {
	told string
	at   time.Time
}

// news says whether the reason must be told: it is another one, and the last one was told
// some time ago.
func (t *trouble) news(reason error, now time.Time) bool {
	text := reason.Error()
	if text == t.told || !t.at.IsZero() && now.Sub(t.at) < tellInterval {
		return false
	}
	t.told, t.at = text, now
	return true
}
