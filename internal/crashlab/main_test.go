package crashlab

import (
	"os"
	"testing"
)

// TestMain makes the test binary the program of the laboratory's processes.
func TestMain(m *testing.M) {
	RunChild(map[string]Subject{"loop": loop(careful), "loop keeps lost": loop(keepsLost)})
	os.Exit(m.Run())
}
