package crashlab

import (
	"os"
	"testing"
)

// TestMain makes the test binary the program of the laboratory's processes.
func TestMain(m *testing.M) {
	subjects := Subjects()
	subjects["loop"] = loop(careful)
	RunChild(subjects)
	os.Exit(m.Run())
}
