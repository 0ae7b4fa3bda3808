-- Fails when any other script would.
return 'OK'
