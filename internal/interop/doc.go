// Package interop starts what wherry is tested against: programs on NestJS and
// KafkaJS, and Spring Boot applications with Spring Kafka. Where Node, Java or
// their packages are not there a test is skipped, and with KAFKATEST_REQUIRE=1
// it fails.
package interop

import (
	"os"
	"testing"
)

func lack(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("KAFKATEST_REQUIRE") == "1" {
		t.Fatal("KAFKATEST_REQUIRE=1, and " + why)
	}
	t.Skip(why)
}
