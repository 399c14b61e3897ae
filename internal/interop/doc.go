// Package interop starts what wherry is tested against: programs on NestJS and
// KafkaJS, and Spring Boot applications with Spring Kafka. Where Node, Java or
// their packages are not there a test is skipped, and with KAFKATEST_REQUIRE=1
// it fails.
package interop

import (
	"os"
	"os/exec"
	"testing"
)

// Need skips or fails the test where a program is not on the PATH.
func Need(t testing.TB, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		lack(t, "there is no "+program+" on the PATH")
	}
}

func lack(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("KAFKATEST_REQUIRE") == "1" {
		t.Fatal("KAFKATEST_REQUIRE=1, and " + why)
	}
	t.Skip(why)
}
