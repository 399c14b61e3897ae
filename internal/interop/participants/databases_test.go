//go:build unix

package participants_test

import (
	"bufio"
	"context"
	"database/sql"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/ncruces/go-sqlite3/driver"
	"github.com/stretchr/testify/require"

	"github.com/wherry-go/wherry/saga"
)

// onDatabases runs test on a database of each kind, with a Barrier and an empty
// table of effects.
func onDatabases(t *testing.T, test func(t *testing.T, db *sql.DB, b saga.Barrier)) {
	t.Helper()
	for name, open := range map[string]func(*testing.T) *sql.DB{"SQLite": openSQLite, "PostgreSQL": openPostgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, b := open(t), saga.Barrier{Table: "checkout_barrier"}
			for range 2 {
				_, err := db.ExecContext(t.Context(), b.Schema())
				require.NoError(t, err)
			}
			_, err := db.ExecContext(t.Context(), "CREATE TABLE effects (what TEXT NOT NULL)")
			require.NoError(t, err)
			test(t, db, b)
		})
	}
}

func openSQLite(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(t.TempDir(), "db")+"?_pragma=busy_timeout(60000)&_pragma=journal_mode(wal)&_pragma=synchronous(off)&_txlock=immediate")
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

// openPostgres runs a PostgreSQL of its own for the test, which is reached by a
// socket in a folder. A test without its programs is skipped, or fails with
// KAFKATEST_REQUIRE=1.
func openPostgres(t *testing.T) *sql.DB {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // where Debian has them
	slices.Sort(found)
	initdb, err := exec.LookPath("initdb")
	if err != nil && len(found) > 0 {
		initdb, err = found[len(found)-1], nil
	}
	if err != nil {
		why := "needs PostgreSQL's server (Debian: apt-get install postgresql): " + err.Error()
		if os.Getenv("KAFKATEST_REQUIRE") == "1" {
			t.Fatal("KAFKATEST_REQUIRE=1, and this " + why)
		}
		t.Skip(why)
	}
	dir, err := os.MkdirTemp("", "wherry-pg") // a short name, for the socket; t.TempDir is closed to others
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	as := &syscall.SysProcAttr{Setpgid: true}
	if os.Getuid() == 0 { // which PostgreSQL refuses to run as
		u, err := user.Lookup("postgres")
		if err != nil {
			u, err = user.Lookup("nobody")
		}
		require.NoError(t, err)
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		require.NoError(t, err)
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		require.NoError(t, err)
		require.NoError(t, os.Chown(dir, int(uid), int(gid)))
		as.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	data := filepath.Join(dir, "data")
	cmd := exec.CommandContext(t.Context(), initdb, "-D", data, "-U", "postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")
	cmd.SysProcAttr, cmd.Dir = as, dir
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))

	server := exec.CommandContext(context.Background(), filepath.Join(filepath.Dir(initdb), "postgres"),
		"-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "log_min_messages=log")
	server.SysProcAttr, server.Dir = as, dir
	log, err := server.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, server.Start())
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGINT) // a fast shutdown
		_ = server.Wait()
	})
	said, ready := []string{}, false
	for lines := bufio.NewScanner(log); !ready && lines.Scan(); {
		said = append(said, lines.Text())
		ready = strings.Contains(lines.Text(), "ready to accept connections")
	}
	require.True(t, ready, "%s", strings.Join(said, "\n"))
	go func() { _, _ = io.Copy(io.Discard, log) }()

	db, err := sql.Open("pgx", "host="+dir+" user=postgres dbname=postgres")
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}
