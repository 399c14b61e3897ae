package apache

import (
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// jvm knows the arguments of a node's Java, and its class-data archive: classes
// read and verified once, then mapped, which takes the start of a node from
// 2.4 s to 1 s.
type jvm struct {
	base      []string
	classpath string
	archive   string
}

// newJVM settles the arguments for one Java and one folder of jars.
func newJVM(java, jars string, heapMB int) (*jvm, error) {
	found, err := filepath.Glob(filepath.Join(jars, "*.jar"))
	if err != nil {
		return nil, err
	}
	// An archive holds for one Java and one order of unchanged jars.
	if java, err = filepath.EvalSymlinks(java); err != nil {
		return nil, err
	}
	slices.Sort(found)
	hash := fnv.New64a()
	for _, file := range append([]string{java}, found...) {
		info, err := os.Stat(file)
		if err != nil {
			return nil, err
		}
		_, _ = fmt.Fprintln(hash, file, info.Size(), info.ModTime().UnixNano())
	}
	return &jvm{
		base: []string{
			fmt.Sprintf("-Xms%dm", heapMB), fmt.Sprintf("-Xmx%dm", heapMB),
			// The second compiler pays only after about a minute of load.
			"-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData",
			"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
			"-Dorg.slf4j.simpleLogger.showDateTime=true",
			"-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
		},
		classpath: strings.Join(found, string(os.PathListSeparator)),
		archive:   filepath.Join(jars, fmt.Sprintf("classes-%x.jsa", hash.Sum64())),
	}, nil
}

// args returns the arguments up to the class to run. They use the archive when
// there is one; where there is none and dump is true, the process leaves one at
// the returned place when it ends cleanly, for keep.
func (j *jvm) args(dump bool) (args []string, dumped string) {
	args = slices.Clone(j.base)
	if _, err := os.Stat(j.archive); err == nil {
		args = append(args, "-XX:SharedArchiveFile="+j.archive, "-Xshare:auto")
	} else if dump {
		// A name of its own for each process: several may be the first.
		if f, err := os.CreateTemp(filepath.Dir(j.archive), "new-*.jsa"); err == nil {
			dumped = f.Name()
			_ = f.Close()
			args = append(args, "-XX:ArchiveClassesAtExit="+dumped)
		}
	}
	return append(args, "-cp", j.classpath), dumped
}

// keep makes a whole archive the one that is used, and removes one that a
// killed process did not write.
func (j *jvm) keep(dumped string) {
	if info, err := os.Stat(dumped); err == nil && info.Size() > 0 && os.Rename(dumped, j.archive) == nil {
		return
	}
	_ = os.Remove(dumped)
}
