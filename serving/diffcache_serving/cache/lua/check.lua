-- Fails if the other scripts would fail.
return 'OK'
