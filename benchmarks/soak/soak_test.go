package soak

import (
	"testing"
	"time"
)

func TestJudgeSeesWhatGrows(t *testing.T) {
	var samples []Sample
	for i := range 100 {
		at := float64(i)
		samples = append(samples, Sample{
			At:     time.Duration(i) * interval,
			Memory: 50e6 + 1e6*at, Goroutines: 40 + float64(i%7), Descriptors: min(at, 20),
		})
	}
	for _, v := range Judge(samples) {
		if want := v.Name != "memory, MB"; v.Flat != want {
			t.Errorf("%+v", v)
		}
	}
}
