package auth

// Cheap makes the hashes of a service cost nothing, for tests that are about
// something else: those of the real cost take a second each where a machine is busy.
func Cheap(s *Service) *Service {
	s.init()
	s.passwords.cost = cost{memory: 64, passes: 1, lanes: 1}
	return s
}
