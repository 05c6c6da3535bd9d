create table users (
  id int primary key auto_increment,
  name varchar(80) not null,
  email varchar(120) not null,
  city varchar(60) not null
);

insert into users (id, name, email, city) values
  (1, 'Ada Lovelace', 'ada@shop.example', 'London'),
  (2, 'Grace Hopper', 'grace@shop.example', 'New York'),
  (3, 'Alan Turing', 'alan@shop.example', 'Wilmslow'),
  (4, 'Katherine Johnson', 'katherine@shop.example', 'Hampton'),
  (5, 'Edsger Dijkstra', 'edsger@shop.example', 'Nuenen'),
  (6, 'Barbara Liskov', 'barbara@shop.example', 'Boston'),
  (7, 'Niklaus Wirth', 'niklaus@shop.example', 'Zürich'),
  (8, '王选', 'wang@shop.example', '北京');

create table orders (
  id int primary key auto_increment,
  user_id int not null,
  item varchar(80) not null,
  amount decimal(10,2) not null,
  placed date not null,
  key by_user (user_id)
);

insert into orders (id, user_id, item, amount, placed) values
  (1, 1, 'Analytical engine, brass', 1843.00, '2026-03-02'),
  (2, 1, 'Punched cards, 1000', 24.50, '2026-03-02'),
  (3, 2, 'Moth, in frame', 19.47, '2026-04-11'),
  (4, 3, 'Paper tape, endless', 36.00, '2026-05-23'),
  (5, 4, 'Slide rule', 62.20, '2026-06-01'),
  (6, 5, 'Semaphore', 120.00, '2026-06-30'),
  (7, 6, 'Substitute part', 9.99, '2026-07-08'),
  (8, 7, 'Grinder for pascal beans', 79.00, '2026-08-15'),
  (9, 8, '激光照排机', 5200.00, '2026-09-01'),
  (10, 2, 'Nanosecond of wire, 30 cm', 0.99, '2026-10-19');
