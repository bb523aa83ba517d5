"""Facts about animals, elements, colours and plain quantities.

Read by candidates.py. A comma separates answers of which any is right.
"""

from typing import Final

YOUNG: Final = """
dog | puppy,pup
cat | kitten
cow | calf
horse | foal,colt,filly
sheep | lamb
goat | kid
pig | piglet
duck | duckling
goose | gosling
chicken | chick
bear | cub
lion | cub
tiger | cub
wolf | pup,cub,puppy
fox | kit,cub,pup
deer | fawn
kangaroo | joey
koala | joey
frog | tadpole
swan | cygnet
eagle | eaglet
owl | owlet
rabbit | kit,kitten,bunny
seal | pup
whale | calf
elephant | calf
giraffe | calf
dolphin | calf
butterfly | caterpillar
turkey | poult,chick
zebra | foal
"""

SOUNDS: Final = """
dog | bark,woof
cat | meow,purr
cow | moo
sheep | baa,bleat
pig | oink
duck | quack
lion | roar
horse | neigh,whinny
bee | buzz
snake | hiss
owl | hoot
frog | croak,ribbit
rooster | crow,cock-a-doodle-doo
crow | caw
wolf | howl
mouse | squeak
goose | honk
donkey | bray
pigeon | coo
elephant | trumpet
turkey | gobble
"""

KINDS: Final = """
dog | mammal
cat | mammal
whale | mammal
dolphin | mammal
bat | mammal
elephant | mammal
horse | mammal
cow | mammal
monkey | mammal
rabbit | mammal
tiger | mammal
mouse | mammal
kangaroo | mammal
human | mammal
sparrow | bird
eagle | bird
owl | bird
penguin | bird
parrot | bird
robin | bird
ostrich | bird
duck | bird
crow | bird
pigeon | bird
flamingo | bird
shark | fish
salmon | fish
tuna | fish
trout | fish
goldfish | fish
cod | fish
snake | reptile
lizard | reptile
crocodile | reptile
turtle | reptile
alligator | reptile
frog | amphibian
toad | amphibian
salamander | amphibian
newt | amphibian
ant | insect
bee | insect
butterfly | insect
mosquito | insect
beetle | insect
grasshopper | insect
fly | insect
wasp | insect
spider | arachnid
scorpion | arachnid
"""

ELEMENTS: Final = """
hydrogen | H
helium | He
lithium | Li
beryllium | Be
boron | B
carbon | C
nitrogen | N
oxygen | O
fluorine | F
neon | Ne
sodium | Na
magnesium | Mg
aluminum | Al
silicon | Si
phosphorus | P
sulfur | S
chlorine | Cl
argon | Ar
potassium | K
calcium | Ca
titanium | Ti
chromium | Cr
manganese | Mn
iron | Fe
cobalt | Co
nickel | Ni
copper | Cu
zinc | Zn
gallium | Ga
germanium | Ge
arsenic | As
selenium | Se
bromine | Br
krypton | Kr
rubidium | Rb
strontium | Sr
zirconium | Zr
molybdenum | Mo
silver | Ag
cadmium | Cd
tin | Sn
antimony | Sb
xenon | Xe
cesium | Cs
barium | Ba
tungsten | W
platinum | Pt
gold | Au
mercury | Hg
lead | Pb
bismuth | Bi
radon | Rn
radium | Ra
uranium | U
plutonium | Pu
"""

COLOURS: Final = """
a ripe banana | yellow
the sky on a clear day | blue
grass | green
snow | white
coal | black
a ripe tomato | red
blood | red
a lemon | yellow
a carrot | orange
a leaf in summer | green
milk | white
a fire truck | red
a pumpkin | orange
chocolate | brown
a polar bear | white
a ruby | red
an emerald | green
a sapphire | blue
a crow | black
the sun in a child's drawing | yellow
broccoli | green
spinach | green
a strawberry | red
a cherry | red
a stop sign | red
a school bus | yellow
salt | white
sugar | white
a cucumber | green
a frog | green
a flamingo | pink
corn | yellow
an eggplant | purple
lavender | purple
a canary | yellow
cotton | white
rust | red,brown,orange
an elephant | gray,grey
the ocean | blue
"""

QUANTITIES: Final = """
How many days are in a week? | 7
How many months are in a year? | 12
How many hours are in a day? | 24
How many minutes are in an hour? | 60
How many seconds are in a minute? | 60
How many days are in a year? | 365
How many weeks are in a year? | 52
How many legs does a spider have? | 8
How many legs does an insect have? | 6
How many legs does a dog have? | 4
How many legs does a cat have? | 4
How many legs does a bird have? | 2
How many legs does a horse have? | 4
How many arms does an octopus have? | 8
How many wheels does a bicycle have? | 2
How many wheels does a tricycle have? | 3
How many wheels does a car have? | 4
How many sides does a triangle have? | 3
How many sides does a square have? | 4
How many sides does a rectangle have? | 4
How many sides does a pentagon have? | 5
How many sides does a hexagon have? | 6
How many sides does an octagon have? | 8
How many letters are in the English alphabet? | 26
How many planets are in the solar system? | 8
How many states are in the United States? | 50
How many cents are in a dollar? | 100
How many years are in a century? | 100
How many years are in a decade? | 10
How many centimeters are in a meter? | 100
How many meters are in a kilometer? | 1000
How many grams are in a kilogram? | 1000
How many inches are in a foot? | 12
How many feet are in a yard? | 3
How many eggs are in a dozen? | 12
How many strings does a violin have? | 4
How many strings does a standard guitar have? | 6
How many keys does a piano have? | 88
How many players are on a soccer team on the field? | 11
How many players are on a basketball team on the court? | 5
How many fingers are on one hand? | 5
How many eyes does a human have? | 2
How many hearts does a human have? | 1
How many continents are there? | 7
How many degrees are in a circle? | 360
How many degrees are in a right angle? | 90
How many wings does a butterfly have? | 4
How many cards are in a standard deck without jokers? | 52
How many squares are on a chessboard? | 64
How many zeros are in one million? | 6
"""
