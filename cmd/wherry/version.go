package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"runtime/debug"
)

var versionCommand = command{
	name:    "version",
	summary: "print the version",
	run:     runVersion,
}

// runVersion is "wherry version". A binary that was not installed by version
// says (devel), with the revision it was built from where Go knows it.
func runVersion(_ context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("version", flag.ContinueOnError)
	if err := parse(flags, args, "Prints the version of wherry and of the Go that built it.", stdout, stderr); err != nil {
		return err
	}
	version, revision, goVersion := "(unknown)", "", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		version, goVersion = info.Main.Version, " "+info.GoVersion
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				revision = " " + s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				revision += "+changes"
			}
		}
	}
	_, err := fmt.Fprintf(stdout, "wherry %s%s%s\n", version, revision, goVersion)
	return err
}
