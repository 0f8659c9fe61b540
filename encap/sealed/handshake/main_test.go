package handshake_test

import (
	"os"
	"testing"

	"weft/internal/testnet"
)

func TestMain(m *testing.M) { os.Exit(testnet.RunApart(m)) }
