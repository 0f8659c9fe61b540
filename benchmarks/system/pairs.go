package system

// Pair is two systems of which the ratio says something: System's figures are divided
// by To's.
type Pair struct {
	System string `json:"system"`
	To     string `json:"to"`
}

// Pairs are those of weft as it is installed: beside systems that do the same work, the
// floor, and weft's version before.
func Pairs() []Pair {
	plain, sealed := WeftVXLAN(installedDriver), WeftSealed
	return []Pair{
		{plain, Baseline},
		{plain, "floor-2"},
		{plain, beforeVXLAN},
		{sealed, "wireguard-go"},
		{sealed, "nebula"},
		{sealed, beforeSealed},
	}
}
