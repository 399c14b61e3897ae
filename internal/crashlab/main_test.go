package crashlab

import (
	"os"
	"testing"
)

// TestMain makes the test binary the program of the laboratory's processes.
func TestMain(m *testing.M) {
	RunChild(map[string]Subject{"wherry": Wherry, "loop": loop(careful)})
	os.Exit(m.Run())
}
