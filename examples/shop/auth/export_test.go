package auth

import "time"

// Cheap is for tests that are about something else than time, on a busy machine:
// hashes cost nothing, and what is decided late is waited for.
func Cheap(s *Service) *Service {
	s.init()
	s.passwords.cost = cost{memory: 64, passes: 1, lanes: 1}
	s.patience = time.Minute
	return s
}
