SELECT 1e--'(e'\! id
;
