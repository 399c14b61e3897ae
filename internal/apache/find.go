package apache

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// Version is the version of Apache Kafka that scripts/kafka-jars brings.
const Version = "4.1.1"

// Find returns the folder with Kafka's jars: the environment variable
// KAFKATEST_JARS, or else wherry/kafka-<Version> in the user's cache folder. It
// also looks for Java. The error says all that is missing and what brings it.
func Find() (string, error) {
	_, noJava := java()
	jars, noJars := folder()
	if err := errors.Join(noJava, noJars); err != nil {
		return "", err
	}
	return jars, nil
}

func folder() (string, error) {
	if jars := os.Getenv("KAFKATEST_JARS"); jars != "" {
		if found, _ := filepath.Glob(filepath.Join(jars, "kafka_2.*.jar")); len(found) == 0 {
			return "", fmt.Errorf("KAFKATEST_JARS=%s has no kafka_2.*.jar: it should name the libs folder of an Apache Kafka; unset it to use that of scripts/kafka-jars", jars)
		}
		return jars, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder; or set KAFKATEST_JARS: %w", err)
	}
	jars := filepath.Join(cache, "wherry", "kafka-"+Version)
	if _, err := os.Stat(filepath.Join(jars, "complete")); err != nil {
		return "", fmt.Errorf("no Kafka jars in %s: run scripts/kafka-jars of github.com/wherry-go/wherry (needs Maven), or set KAFKATEST_JARS to the libs folder of an Apache Kafka", jars)
	}
	return jars, nil
}

// version reads the first number of what java -version prints, such as
// openjdk version "17.0.15".
var version = regexp.MustCompile(`version "(\d+)`)

// java returns the program of JAVA_HOME, or else that in the path. Kafka 4 needs
// Java 17 for a broker.
var java = sync.OnceValues(func() (string, error) {
	program, err := exec.LookPath("java")
	if home := os.Getenv("JAVA_HOME"); home != "" {
		program, err = exec.LookPath(filepath.Join(home, "bin", "java"))
	}
	if err != nil {
		return "", fmt.Errorf("no java (%w): install Java 17 or newer, or set JAVA_HOME", err)
	}
	out, err := exec.Command(program, "-version").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s -version: %w: install Java 17 or newer", program, err)
	}
	if m := version.FindSubmatch(out); m != nil {
		if major, _ := strconv.Atoi(string(m[1])); major >= 17 {
			return program, nil
		}
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return "", fmt.Errorf("%s is %s: install Java 17 or newer, or set JAVA_HOME", program, first)
})
